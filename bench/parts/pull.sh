# Pull: a Debian with python3 (33,000 files, 5 layers) into an empty store, from a registry on this machine.
# shellcheck shell=bash disable=SC2154

bench_pull() {
    local fs=$work/fs podman manifest format
    fresh_fs "$fs" 12G
    start_registry
    push_fixture
    manifest=$(skopeo inspect --raw --tls-verify=false "docker://$image")

    # The floors: every layer at once, no digest checked, nothing flushed.
    local gunzip=igzip
    has igzip || gunzip=gzip
    for format in inflate tar; do
        cat >"$work/floor-$format" <<SH
set -eu
mkdir -p $fs/floor
pids=
n=0
for digest in $(jq -r '.layers[].digest' <<<"$manifest" | tr '\n' ' '); do
    n=\$((n + 1))
    mkdir $fs/floor/\$n
    (set -o pipefail; curl -sS "http://$registry/v2/debian/blobs/\$digest" | $gunzip -dc |
        if [ $format = tar ]; then tar -x -C $fs/floor/\$n --numeric-owner; else cat >/dev/null; fi) &
    pids="\$pids \$!"
done
for pid in \$pids; do wait \$pid; done
SH
    done
    podman=$(podman_ "$fs/podman")
    row_after "rm -rf $fs/floor; sync -f $fs" "floor: curl | $gunzip, all layers at once" "bash $work/floor-inflate"
    row_after "rm -rf $fs/floor; sync -f $fs" "floor: curl | $gunzip | tar, all layers at once" "bash $work/floor-tar"
    local emptied
    for format in erofs dir; do
        emptied="ONGGI_ROOT=$fs/$format $onggi system prune -af; rm -rf $fs/floor $fs/$format $work/onggi-run; sync -f $fs"
        row_after "$emptied" "onggi pull, layers as $format" "ONGGI_ROOT=$fs/$format $onggi --storage $format pull -q $image"
    done
    if has podman; then
        row_after "$podman rmi -af; sync -f $fs" 'podman pull' "$podman pull -q --tls-verify=false $image"
    fi
    if start_docker "$fs/docker"; then
        row_after "docker image rm -f $image; docker image prune -af; sync -f $fs" 'docker pull' "docker pull -q $image"
    fi
    table "pull of $(du -sh --apparent-size "$images/debian-python" | cut -f1) in 5 layers into an empty store"

    for format in erofs dir; do
        emptied="ONGGI_ROOT=$fs/$format $onggi --storage $format pull -q $image; sync -f $fs"
        row_after "$emptied" "onggi rmi, layers as $format" "ONGGI_ROOT=$fs/$format $onggi rmi $image"
    done
    if has podman; then
        row_after "$podman pull -q --tls-verify=false $image; sync -f $fs" 'podman rmi' "$podman rmi $image"
    fi
    table 'removing that image again'

    for format in erofs dir; do
        ONGGI_ROOT=$fs/$format "$onggi" --storage $format pull -q "$image" >/dev/null
        figure 'disk use' "layers as $format" "$(du -sm "$fs/$format/layers" | cut -f 1)" MB
    done
    [ -x /usr/bin/time ] || return 0
    for format in erofs dir; do
        rm -rf "$fs/memory"
        ONGGI_ROOT=$fs/memory /usr/bin/time -f '%M' -o "$work/rss" "$onggi" --storage $format pull -q "$image" >/dev/null
        figure 'memory of a pull' "layers as $format" $(($(cat "$work/rss") / 1024)) MB
    done
}
