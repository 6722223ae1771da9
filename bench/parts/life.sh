# Life: services that stay. A detached start to its first line, exec, 100 containers up and down on one network,
# and what networks let through, as root and as an ordinary user.
# shellcheck shell=bash disable=SC2154

# in_host COMMAND…: on a host of this part's own, as far as the network goes.
in_host() { nsenter --net="/proc/$host/ns/net" "$@"; }

# away TOOL NAME: a container killed and removed.
away() {
    $1 kill "$2" >/dev/null 2>&1 || true
    $1 rm -f "$2" >/dev/null 2>&1 || true
}

# life_scripts NAME TOOL: the scripts of one tool, since a row has no shell.
life_scripts() {
    local name=$1 tool=$2 image=localhost/busybox dir=$work/scripts
    mkdir -p "$dir"
    cat >"$dir/first-line-$name" <<SH
$tool run -d --name first --network none $image sh -c 'echo up; exec sleep 600' >/dev/null
until $tool logs first 2>/dev/null | grep -q up; do :; done
SH
    cat >"$dir/up-$name" <<SH
for i in \$(seq 100); do $tool run -d --name many\$i --network many $image sleep 600 >/dev/null || exit 1; done
SH
    cat >"$dir/down-$name" <<SH
names=\$(seq -f many%g 100)
$tool stop -t 0 \$names >/dev/null && $tool rm \$names >/dev/null
SH
    # shellcheck disable=SC2016
    cat >"$dir/reach-$name" <<SH
$tool run --rm --network many $image sh -c 'for i in \$(seq 10 10 100); do ping -c1 -W1 many\$i >/dev/null 2>&1 || echo many\$i; done'
SH
    # The host's own program and what it needs, in a container without any.
    local host_files='-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro'
    cat >"$dir/serve-$name" <<SH
$tool run -d --name server --network many -p 127.0.0.1:5201:5201 $host_files $image /usr/bin/iperf3 -s >/dev/null
SH
    cat >"$dir/inner-$name" <<SH
$tool run --rm --network many $host_files $image /usr/bin/iperf3 -c server -t 3 -J
SH
}

# timed TITLE NAME COMMAND…: what takes so long that once is enough.
timed() {
    local title=$1 name=$2 start
    shift 2
    start=$(date +%s%N)
    "$@" || return 0
    figure "$title" "$name" "$((($(date +%s%N) - start) / 1000000))" ms
}

# memory PATTERN: the memory (PSS) of all processes whose command line is so, in kB.
memory() {
    local pid sum=0 part
    for pid in $(pgrep -f "$1"); do
        part=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null) || continue
        sum=$((sum + ${part:-0}))
    done
    echo $sum
}

gigabits() { jq -r '.end.sum_received.bits_per_second / 1e9 * 100 | round / 100'; }

# throughput NAME TITLE: from container to container by name, and from the host to a published port.
throughput() {
    local name=$1 title=$2 run=${3:-} value
    # shellcheck disable=SC2086
    $run bash "$work/scripts/serve-$name" || return 0
    sleep 1
    # shellcheck disable=SC2086
    value=$($run bash "$work/scripts/inner-$name" | gigabits) && figure "throughput" "$title, container to container" "$value" Gbit/s
    value=$(in_host iperf3 -c 127.0.0.1 -t 3 -J | gigabits) && figure "throughput" "$title, host to a published port" "$value" Gbit/s
}

bench_life() {
    local podman tool name user
    unshare --net sleep 3600 &
    host=$!
    pids+=("$host")
    until [ "$(readlink "/proc/$host/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
    in_host ip link set lo up
    fresh_fs "$work/disk" 8G
    mkdir "$work/run"
    mount -t tmpfs tmpfs "$work/run"
    export ONGGI_ROOT=$work/disk/onggi ONGGI_RUNROOT=$work/run/onggi
    skopeo copy -q "oci:$images/busybox:latest" "docker-archive:$work/busybox.tar:localhost/busybox:latest"
    "$onggi" load -q --input "$work/busybox.tar" >/dev/null
    local tools=(onggi)
    life_scripts onggi "$onggi"
    podman="podman --root $work/disk/podman --runroot $work/run/podman --storage-driver overlay --cgroup-manager cgroupfs"
    # Its networks are otherwise the machine's.
    podman="$podman --network-config-dir $work/disk/podman-networks"
    # shellcheck disable=SC2086
    if has podman && tries podman $podman load -q -i "$work/busybox.tar"; then
        life_scripts podman "$podman --log-level error"
        tools+=(podman)
    fi
    local -A command=([onggi]=$onggi [podman]=$podman)
    for name in "${tools[@]}"; do
        row_after "{ ${command[$name]} kill first; ${command[$name]} rm -f first; } >/dev/null 2>&1; true" "$name, detached start to its first line" "bash $work/scripts/first-line-$name"
    done
    table 'detached start to the first line in the log'

    for name in "${tools[@]}"; do
        away "${command[$name]}" first
        # shellcheck disable=SC2086
        ${command[$name]} run -d --name live --network none localhost/busybox sleep 3600 >/dev/null
        row "$name exec" "${command[$name]} exec live true"
    done
    table 'exec in a container that runs'

    for name in "${tools[@]}"; do
        away "${command[$name]}" live
        # shellcheck disable=SC2086
        in_host ${command[$name]} network create many >/dev/null || continue
        timed '100 containers on one network, one after the other' "$name, started" in_host bash "$work/scripts/up-$name"
    done
    for name in "${tools[@]}"; do
        local unreached
        unreached=$(in_host bash "$work/scripts/reach-$name" 2>/dev/null | wc -w)
        if [ "$name" != onggi ] && [ "$unreached" = 10 ]; then
            echo "  (without names of $name: its server does not run here)"
            continue
        fi
        figure '100 containers on one network, one after the other' "$name, of ten asked by name not reached" "$unreached" containers
    done
    figure 'memory (PSS) of 100 containers' 'onggi, supervisors' "$(memory '^onggi-supervisor many')" kB
    figure 'memory (PSS) of 100 containers' 'onggi, resolvers' "$(memory '^onggi: resolver')" kB
    figure 'rules of 100 containers' 'onggi, nft list table inet onggi' "$(in_host nft list table inet onggi | wc -l)" lines
    if [ ${#tools[@]} -gt 1 ]; then
        figure 'memory (PSS) of 100 containers' 'podman, conmon' "$(memory "conmon.*$work/")" kB
        figure 'memory (PSS) of 100 containers' 'podman, aardvark-dns' "$(memory "aardvark-dns.*$work/")" kB
        figure 'rules of 100 containers' 'podman, iptables-save' "$(in_host iptables-save 2>/dev/null | wc -l)" lines
    fi
    for name in "${tools[@]}"; do
        timed '100 containers on one network, one after the other' "$name, stopped and removed" in_host bash "$work/scripts/down-$name"
    done

    has iperf3 || { echo '  (without throughput: no iperf3)'; return 0; }
    for name in "${tools[@]}"; do
        throughput "$name" "$name, bridge" in_host
        away "in_host ${command[$name]}" server
    done
    life_of_a_user
}

# The same of an ordinary user, nobody, with subordinate IDs of his own.
life_of_a_user() {
    if ! has pasta || ! has setpriv || [ ! -e /dev/net ]; then
        echo "  (without rootless networks: no pasta)"
        return 0
    fi
    local home user
    ordinary_user
    mount -t tmpfs tmpfs /dev/net
    mknod -m 666 /dev/net/tun c 10 200
    # An address and a way out for pasta to copy.
    in_host ip link add up0 type veth peer name up1
    in_host ip link set up0 up
    in_host ip link set up1 up
    in_host ip addr add 192.0.2.10/24 dev up0
    in_host ip route add default via 192.0.2.1
    local names=(onggi)
    local -A command=([onggi]="$user $home/onggi" [podman]="$user podman --cgroup-manager cgroupfs")
    chmod 644 "$work/busybox.tar"
    # shellcheck disable=SC2086
    in_host ${command[onggi]} load -q --input "$work/busybox.tar" >/dev/null
    # shellcheck disable=SC2086
    if has podman && tries 'podman without root' in_host ${command[podman]} load -q -i "$work/busybox.tar"; then
        names+=(podman)
    fi
    local name
    for name in "${names[@]}"; do
        life_scripts "$name" "${command[$name]}"
        # shellcheck disable=SC2086
        tries "$name without root" in_host ${command[$name]} network create many || continue
        throughput "$name" "$name, ordinary user" in_host
        if [ "$name" = onggi ]; then
            figure 'memory (PSS) of networks without root' 'onggi, holder' "$(memory '^onggi: networks')" kB
            figure 'memory (PSS) of networks without root' 'pasta, the way out and one for ports' "$(memory "pasta.*$home")" kB
        fi
        away "in_host ${command[$name]}" server
    done
    umount /dev/net
    end_ordinary_user
}
