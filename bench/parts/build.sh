# Builds: beside buildah, podman build and Docker's BuildKit. Nobody's steps have a network, and everybody's base is
# there already.
# shellcheck shell=bash disable=SC2154

bench_build() {
    local disk=$work/disk cold=$work/cold large=$work/large diamond=$work/diamond i tool tools=()
    fresh_fs "$disk" 20G
    start_registry
    export ONGGI_ROOT=$disk/onggi
    # Ten trivial steps, and a copy of 2,000 files of 4 KB.
    mkdir -p "$cold/files" "$large/vendor" "$large/app" "$diamond"
    head -c 6000000 /dev/urandom | base64 -w 4000 | split -l 1 -a 4 - "$cold/files/f"
    {
        echo 'FROM localhost/busybox'
        for i in $(seq 10); do echo "RUN echo $i > /f$i"; done
        echo 'COPY files /files'
    } >"$cold/Dockerfile"
    # 50,000 files that stay as they are, and one that changes.
    for i in $(seq 0 499); do
        mkdir "$large/vendor/$i"
        seq 100 | (cd "$large/vendor/$i" && split -l 1 -a 2 - f)
    done
    echo 0 >"$large/app/main"
    printf 'FROM localhost/busybox\nCOPY vendor /vendor\nCOPY app /app\n' >"$large/Dockerfile"
    # Eight stages that wait 0.3 s each, and one that has something of all.
    {
        for i in $(seq 8); do printf 'FROM localhost/busybox AS s%s\nRUN sleep 0.3; echo %s > /out\n' "$i" "$i"; done
        echo 'FROM localhost/busybox'
        for i in $(seq 8); do echo "COPY --from=s$i /out /out$i"; done
    } >"$diamond/Dockerfile"

    skopeo copy -q --dest-tls-verify=false "oci:$images/busybox:latest" "docker://$registry/busybox:1"
    "$onggi" pull -q "$registry/busybox:1" >/dev/null
    "$onggi" tag "$registry/busybox:1" localhost/busybox
    build_tool onggi "$onggi build --network none --jobs 8 -q -t localhost/bench" \
        "$onggi tag localhost/bench NAME && exec $onggi push -q NAME"
    for tool in buildah podman docker; do "add_$tool"; done

    rows_of() { # PREPARE ARGUMENT…: the same of every tool.
        local before=$1 one
        shift
        for one in "${tools[@]}"; do row_after "$before" "$one build" "${build[$one]} $*"; done
    }
    rows_of "sync -f $disk" --no-cache "$cold"
    table '10 trivial RUN steps and a COPY of 2,000 files, nothing known'
    for tool in "${tools[@]}"; do ${build[$tool]} "$cold" >"$work/build.log" 2>&1; done
    rows_of true "$cold"
    table 'the same, everything known'
    for tool in "${tools[@]}"; do ${build[$tool]} "$large" >"$work/build.log" 2>&1; done
    # Who remembers times does not trust one of this moment.
    sleep 3
    for tool in "${tools[@]}"; do ${build[$tool]} "$large" >"$work/build.log" 2>&1; done
    rows_of "date +%N > $large/app/main" "$large"
    table 'one file changed in a context of 50,000'
    rows_of "sync -f $disk" --no-cache "$diamond"
    table 'eight stages of 0.3 s side by side, and one of all'
    for tool in "${tools[@]}"; do
        printf '#!/bin/sh\n%s %s >/dev/null && %s\n' "${build[$tool]}" "$cold" \
            "${push[$tool]//NAME/$registry/image:1}" >"$work/push-${tool%% *}"
        chmod +x "$work/push-${tool%% *}"
        row_after "rm -rf $work/registry/docker" "$tool build and push" "$work/push-${tool%% *}"
    done
    table 'the image of the first table, known, into an empty registry'
}

declare -A build push
# build_tool NAME BUILD PUSH: BUILD without its context; PUSH has NAME for where it goes.
build_tool() {
    tools+=("$1")
    build[$1]=$2 push[$1]=$3
}

add_buildah() {
    has buildah || { echo "  (without buildah: not installed)"; return 0; }
    local base="buildah --root $disk/buildah --runroot $work/buildah-run --storage-driver overlay"
    # shellcheck disable=SC2086
    tries buildah $base pull -q --tls-verify=false "$registry/busybox:1" || return 0
    # shellcheck disable=SC2086
    $base tag "$registry/busybox:1" localhost/busybox
    # shellcheck disable=SC2086
    tries buildah $base build --network none --layers -q -t localhost/bench "$diamond" || return 0
    build_tool buildah "$base build --network none --layers --jobs 8 -q -t localhost/bench" \
        "exec $base push -q --tls-verify=false localhost/bench NAME"
}

add_podman() {
    has podman || { echo "  (without podman: not installed)"; return 0; }
    local base
    base=$(podman_ "$disk/podman")
    # shellcheck disable=SC2086
    tries podman $base pull -q --tls-verify=false "$registry/busybox:1" || return 0
    # shellcheck disable=SC2086
    $base tag "$registry/busybox:1" localhost/busybox
    # shellcheck disable=SC2086
    tries podman $base build --network none --layers -q -t localhost/bench "$diamond" || return 0
    build_tool podman "$base build --network none --layers --jobs 8 -q -t localhost/bench" \
        "exec $base push -q --tls-verify=false localhost/bench NAME"
}

add_docker() {
    # Docker's command line builds with BuildKit by its plugin buildx alone.
    local name=docker
    export DOCKER_BUILDKIT=1
    docker buildx version >/dev/null 2>&1 || { DOCKER_BUILDKIT=0 name="docker's old"; }
    start_docker "$disk/docker" || return 0
    tries docker docker pull -q "$registry/busybox:1" || return 0
    docker tag "$registry/busybox:1" localhost/busybox
    tries docker docker build --network none -q -t localhost/bench "$diamond" || return 0
    build_tool "$name" "docker build --network none -q -t localhost/bench" \
        "docker tag localhost/bench NAME && exec docker push -q NAME"
}
