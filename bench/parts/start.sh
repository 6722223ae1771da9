# Start: `run --rm --network none busybox true` against what the kernel alone takes, and many at once.
# shellcheck shell=bash disable=SC2154

bench_start() {
    local bundle podman runtime tool=
    # Small files on a file system in memory, as /run is, for everybody alike.
    mkdir "$work/fs"
    mount -t tmpfs -o size=512m tmpfs "$work/fs"
    fresh_fs "$work/disk" 4G
    export ONGGI_ROOT=$work/disk/onggi ONGGI_RUNROOT=$work/fs/onggi
    bundle=$work/disk/bundle
    skopeo copy -q "oci:$images/busybox:latest" "docker-archive:$work/busybox.tar:localhost/busybox:latest"
    "$onggi" load -q --input "$work/busybox.tar" >/dev/null
    gcc -O2 -o "$work/floor" "$here/floor.c"
    umoci unpack --image "$images/busybox:latest" "$bundle" >/dev/null 2>&1
    jq '.process.terminal = false | .process.args = ["true"]' "$bundle/config.json" >"$work/config.json"
    mv "$work/config.json" "$bundle/config.json"
    mkdir "$work/disk/scratch"

    row 'floor: fork and exec' '/bin/true'
    local floor="$work/floor $bundle/rootfs $work/disk/scratch"
    row 'floor: namespaces, overlay, pivot_root, exec' "$floor all /bin/true"
    row 'floor: the same without a network namespace' "$floor no-net /bin/true"
    row 'onggi run --rm --network none' "$onggi run --rm --network none localhost/busybox true"
    row 'onggi run --rm --network host' "$onggi run --rm --network host localhost/busybox true"
    tries 'onggi oci' "$onggi" oci --root "$work/fs/oci" run --bundle "$bundle" try-$$ &&
        row 'onggi oci run, prepared bundle' "$onggi oci --root $work/fs/oci run --bundle $bundle bench-{}"
    for runtime in crun runc; do
        has $runtime || continue
        tries $runtime $runtime --root "$work/fs/$runtime" run --bundle "$bundle" try-$$ || continue
        row "$runtime run, prepared bundle" "$runtime --root $work/fs/$runtime run --bundle $bundle bench-{}"
        tool="$tool $runtime"
    done
    local bwrap="bwrap --unshare-all --bind $bundle/rootfs / --proc /proc --dev /dev true"
    # shellcheck disable=SC2086
    has bwrap && tries bwrap $bwrap && row 'bwrap, without limits, filter or layers' "$bwrap"
    podman=$(podman_ "$work/disk/podman")
    # shellcheck disable=SC2086
    if has podman && tries podman $podman load -q -i "$work/busybox.tar" &&
        tries podman $podman run --rm --network none localhost/busybox true; then
        row 'podman run' "$podman run --rm --network none localhost/busybox true"
        tool="$tool podman"
    fi
    if start_docker "$work/disk/docker" && tries docker docker load -q -i "$work/busybox.tar" &&
        tries docker docker run --rm --network none localhost/busybox true; then
        row 'docker run' 'docker run --rm --network none localhost/busybox true'
        tool="$tool docker"
    fi
    table 'start of a container'

    local together
    for together in 50 200; do
        burst $together 200 'floor' "$floor all /bin/true"
        burst $together 200 'onggi run' "$onggi run --rm --network none localhost/busybox true"
        burst $together 200 'onggi oci run' "$onggi oci --root $work/fs/oci run --bundle $bundle many-{}"
        for runtime in crun runc; do
            case $tool in *" $runtime"*) burst $together 200 "$runtime run" "$runtime --root $work/fs/$runtime run --bundle $bundle many-{}" ;; esac
        done
        runs=3 table "200 containers, $together at a time"
    done
    for runtime in podman docker; do
        case $tool in *" $runtime"*) ;; *) continue ;; esac
        [ $runtime = podman ] && burst 50 50 podman "$podman run --rm --network none localhost/busybox true"
        [ $runtime = docker ] && burst 50 50 docker 'docker run --rm --network none localhost/busybox true'
    done
    burst 50 50 'onggi run' "$onggi run --rm --network none localhost/busybox true"
    runs=3 table '50 containers at once'
    start_of_a_user
}

# The same of an ordinary user, nobody, with subordinate IDs of his own.
start_of_a_user() {
    has setpriv || return 0
    local home user tool
    ordinary_user
    chmod 644 "$work/busybox.tar"
    local -A command=([onggi]="$user $home/onggi" [podman]="$user podman --storage-driver overlay --cgroup-manager cgroupfs")
    row 'floor: setpriv, env, unshare of six namespaces' "$user unshare -Umpinu --map-root-user --fork --mount-proc true"
    for tool in onggi podman; do
        [ $tool = onggi ] || has $tool || continue
        # shellcheck disable=SC2086
        tries "$tool without root" ${command[$tool]} load -q -i "$work/busybox.tar" &&
            tries "$tool without root" ${command[$tool]} run --rm --network none localhost/busybox true &&
            row "$tool run" "${command[$tool]} run --rm --network none localhost/busybox true"
    done
    table 'start of a container by an ordinary user (through setpriv and env)'
    end_ordinary_user
}
