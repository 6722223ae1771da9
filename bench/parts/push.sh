# Push: the same Debian with python3 into an empty registry on this machine.
# shellcheck shell=bash disable=SC2154

bench_push() {
    local podman wiped
    start_registry
    push_fixture
    "$onggi" pull -q "$image" >/dev/null
    podman=$(podman_ "$work/podman")
    # A fresh name in a registry that lost all it had: nothing can be mounted or skipped.
    wiped="rm -rf $work/registry/docker"
    row_after "$wiped; $onggi tag $image $registry/target:1" 'onggi push' "$onggi push -q $registry/target:1"
    row_after "$wiped" 'skopeo copy, from an OCI layout' \
        "skopeo copy -q --dest-tls-verify=false oci:$images/debian-python:latest docker://$registry/target:1"
    # shellcheck disable=SC2086
    if has podman && tries podman $podman pull -q --tls-verify=false "$image"; then
        row_after "$wiped" 'podman push' "$podman push -q --tls-verify=false $image $registry/target:1"
    fi
    table 'push of that image, compressed before, into an empty registry'
}
