# The tools that onggi is compared with, set up below $work; sourced by bench/run.
# shellcheck shell=bash disable=SC2154,SC2034

# Podman asks for more descriptors than some machines let anybody have.
printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n' >"$base/containers.conf"
printf 'unqualified-search-registries = []\n[[registry]]\nlocation = "localhost"\ninsecure = true\n' >"$base/registries.conf"
export CONTAINERS_CONF=$base/containers.conf CONTAINERS_REGISTRIES_CONF=$base/registries.conf

# podman_ STORE: podman's command line for a store of its own.
podman_() { echo "podman --root $1 --runroot $work/podman-run --storage-driver overlay --cgroup-manager cgroupfs"; }

# start_registry: an empty registry, $registry, that ends with the part.
start_registry() {
    local port
    mkdir -p "$work/registry"
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000))
        (: </dev/tcp/127.0.0.1/$port) 2>/dev/null && continue
        cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}, cache: {}}
http: {addr: "127.0.0.1:$port"}
YAML
        docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
        pids+=($!)
        for _ in $(seq 100); do
            (: </dev/tcp/127.0.0.1/$port) 2>/dev/null && { registry=localhost:$port; return; }
            sleep 0.05
        done
    done
    echo "bench: docker-registry doesn't start" >&2
    exit 1
}

# push_fixture: the Debian with python3 into that registry, as $image.
push_fixture() {
    image=$registry/debian:1
    skopeo copy -q --dest-tls-verify=false "oci:$images/debian-python:latest" "docker://$image"
}

# start_docker STORE [OPTION…]: a docker daemon of its own, that ends with the part.
start_docker() {
    local store=$1
    shift
    has dockerd || { echo "  (without docker: no dockerd)"; return 1; }
    mkdir -p "$store"
    [ $# -gt 0 ] || set -- --bridge none --iptables=false --ip6tables=false
    dockerd --data-root "$store" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" -H "unix://$work/docker.sock" \
        --insecure-registry localhost "$@" >"$work/dockerd.log" 2>&1 &
    pids+=($!)
    export DOCKER_HOST=unix://$work/docker.sock
    for _ in $(seq 200); do
        docker version >/dev/null 2>&1 && return 0
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "  (without docker: dockerd doesn't start: $(tail -n 1 "$work/dockerd.log"))"
    return 1
}

# fresh_fs FOLDER SIZE: a new ext4 with a journal, in a loop file: what an old or tired disk does to all alike
# is not what is measured. Without loop devices (BENCH_FS=here) a plain folder.
fresh_fs() {
    mkdir "$1"
    [ "${BENCH_FS:-loop}" = loop ] || return 0
    truncate -s "$2" "$1.img"
    mkfs.ext4 -q "$1.img"
    loops+=("$(losetup --find --show "$1.img")")
    mount "${loops[-1]}" "$1"
}

# ordinary_user: $user, the beginning of a command line of nobody, with subordinate IDs and a home, $home, which has
# a copy of onggi. Until end_ordinary_user.
ordinary_user() {
    home=$work/disk/user
    mkdir -p "$home/run"
    cp "$onggi" "$home/onggi"
    echo 'nobody:200000:65536' >"$home/ids"
    chmod 755 "$work" "$base"
    chown -R nobody "$home"
    # This mount namespace is the benchmark's own.
    mount --bind "$home/ids" /etc/subuid
    mount --bind "$home/ids" /etc/subgid
    user="setpriv --reuid nobody --regid nogroup --clear-groups env -u ONGGI_ROOT -u ONGGI_RUNROOT HOME=$home XDG_RUNTIME_DIR=$home/run"
}

end_ordinary_user() { umount /etc/subuid /etc/subgid; }
