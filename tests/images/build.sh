#!/usr/bin/env bash
# Build the images `device` and `desk` and try them: `tests/images/build.sh [build] [try] [count]`.
#
# build   both images, and their sizes
# try     what docs/containers.md promises: any user, a read-only system, no network, limits, the
#         wall inside, a cap that is too small, being stopped and going on
# count   ROUNDS whole runs of each image inside a memory limit; how many the kernel ended
#
# Without words it builds and tries. From the environment:
#   BUILDER      docker, podman or buildah (its images are run with podman); the first one found
#   BASE_IMAGE   in place of every base image of the Dockerfile
#   BUILD_FLAGS  more words for every build, such as `--secret id=pip,src=pip.conf`
#   RUN_FLAGS    more words for every run
#   GLOBAL_FLAGS words between the program and its command, such as `--root DIR` (podman, buildah)
#   RUNTIME_FLAGS  the same, for whatever runs containers only
#   ROUNDS       of `count`; 20
#   FIRST_SEED   of `count`, whose runs differ in their seed; 1
#   ARTIFACT     a folder that `edge-train export` wrote, in place of an export in the desk image
#   ONLY         the images that `count` runs; `device desk`
set -euo pipefail
cd "$(dirname "$0")/../.."

find_builder() {
    local name
    for name in docker podman buildah; do
        if command -v "$name" >/dev/null; then echo "$name" && return; fi
    done
    echo "no docker, podman or buildah found here; name one with BUILDER=" >&2
    return 2
}

BUILDER=${BUILDER:-$(find_builder)}
read -ra build_words <<<"${BUILD_FLAGS:-}"
read -ra run_words <<<"${RUN_FLAGS:-}"
read -ra builder <<<"$BUILDER ${GLOBAL_FLAGS:-}"
read -ra runner <<<"${BUILDER/buildah/podman} ${GLOBAL_FLAGS:-} ${RUNTIME_FLAGS:-}"
if [ -n "${BASE_IMAGE:-}" ]; then
    for name in DEVICE DESK; do
        build_words+=(--build-arg "${name}_IMAGE=$BASE_IMAGE")
    done
fi

shared=$(mktemp -d) # what every user of these containers may write to: /work
chmod 1777 "$shared"
failed=0
tried=edge-train-tried-$$

finish() {
    local left
    left=$(jobs -p)
    # shellcheck disable=SC2086 # a number is a word
    [ -z "$left" ] || kill $left 2>/dev/null || true
    "${runner[@]}" rm --force "$tried" >/dev/null 2>&1 || true
    rm -rf "$shared"
}
trap finish EXIT

# say WHAT TRUTH: one line for a check; the script ends with status 1 where one fails.
say() {
    if [ "$2" = true ]; then echo "ok      $1"; else echo "FAILED  $1"; failed=1; fi
}

# contained IMAGE MEMORY USER WORDS...: the status of a command in a container, its words in $shared/said.
contained() {
    local image=$1 memory=$2 user=$3
    shift 3
    start "$image" "$memory" "$user" "$@"
    ended
}

start() {
    local image=$1 memory=$2 user=$3
    shift 3
    "${runner[@]}" rm --force "$tried" >/dev/null 2>&1 || true
    "${runner[@]}" run --detach --name "$tried" --network none --read-only --tmpfs /tmp \
        --memory "$memory" --memory-swap "$memory" --cpus 1 --user "$user" --volume "$shared:/work" \
        "${run_words[@]}" "edge-train-$image" "$@" >/dev/null
}

ended() {
    status=$("${runner[@]}" wait "$tried")
    "${runner[@]}" logs "$tried" >"$shared/said" 2>&1
    kernel=$("${runner[@]}" inspect --format '{{.State.OOMKilled}}' "$tried")
    "${runner[@]}" rm "$tried" >/dev/null
    if grep -q '^Traceback' "$shared/said"; then say "no traceback" false; fi
}

# fact RUN KEY: of a run's report.json, as it is written there.
fact() {
    sed -n "s/^  \"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$shared/$1/report.json"
}

build() {
    local image
    for image in device desk; do
        # In the background: a shell that is told to end leaves what is in its foreground behind.
        "${builder[@]}" build "${build_words[@]}" --target "$image" --tag "edge-train-$image" . &
        wait $!
    done
}

sizes() {
    local image
    for image in device desk; do
        bytes=$("${runner[@]}" image inspect --format '{{.Size}}' "edge-train-$image")
        echo "edge-train-$image: $((bytes / 1000000)) MB"
    done
}

# The device has no torch, so the desk writes what it trains.
export_artifact() {
    if [ -d "$shared/artifact" ]; then return; fi
    if [ -n "${ARTIFACT:-}" ]; then
        cp -r "$ARTIFACT" "$shared/artifact"
        chmod -R a+rX "$shared/artifact"
        return
    fi
    contained desk 2g 4711:4711 export tiny-sd artifact --quant int8-fast
    say "desk: export of the embedded model, as user 4711" "$([ "$status" = 0 ] && echo true)"
}

whole() { # IMAGE CAP_MB RUN: whether a run came to its report under its cap, with a wall
    [ "$status" = 0 ] && [ "$kernel" = false ] && [ -s "$shared/$3/report.html" ] \
        && [ "$(fact "$3" status)" = done ] && [ "$(fact "$3" wall)" != none ] \
        && [ "$(fact "$3" measured_peak_bytes)" -le $(($2 * 1000000)) ] && echo true
}

wait_for_steps() { # RUN: until its journal has three
    local tries
    for tries in $(seq 600); do
        if [ "$(grep -c '"kind":"step"' "$shared/$1/journal.jsonl" 2>/dev/null)" -ge 3 ] 2>/dev/null; then return; fi
        sleep 0.2
    done
}

try() {
    local image user
    sizes
    for image in device desk; do
        for user in 10001:10001 4711:0; do
            contained "$image" 900000000b "$user" doctor
            say "$image: doctor as user $user: $(grep -m1 wall "$shared/said")" "$([ "$status" = 0 ] && echo true)"
        done
    done
    export_artifact

    contained device 450000000b 4711:4711 run --mem 400MB --steps 2
    say "device: without an artifact it says how to get one, status 2" \
        "$([ "$status" = 2 ] && grep -q 'export the model where torch is' "$shared/said" && echo true)"

    contained device 450000000b 4711:4711 run --model artifact --mem 400MB --steps 4 --out device
    say "device: --mem 400MB under 450 MB" "$(whole device 400 device)"
    echo "        wall $(fact device wall), peak $(fact device measured_peak_bytes) bytes"

    contained desk 900000000b 4711:4711 run --mem 800MB --steps 4 --out desk
    say "desk: --mem 800MB under 900 MB" "$(whole desk 800 desk)"
    echo "        wall $(fact desk wall), peak $(fact desk measured_peak_bytes) bytes"

    contained device 450000000b 4711:4711 run --model artifact --mem 90MB --steps 4 --out small
    say "device: a cap that is too small is answered with a sentence, not a kill (status $status)" \
        "$([ "$kernel" = false ] && { [ "$status" = 2 ] || [ "$status" = 3 ]; } && echo true)"
    sed 's/^/        /' "$shared/said" | tail -n 1

    start device 450000000b 4711:4711 run --model artifact --mem 400MB --steps 300 --out stopped
    wait_for_steps stopped
    "${runner[@]}" stop --time 60 "$tried" >/dev/null
    ended
    say "device: stopped after $(grep -c '"kind":"step"' "$shared/stopped/journal.jsonl") of 300 steps, status $status" \
        "$([ "$status" = 130 ] && echo true)"
    contained device 450000000b 4711:4711 run --resume stopped
    say "device: goes on from there to the end" "$(whole device 400 stopped)"

    start device 450000000b 4711:4711 run --model artifact --steps 100000 --out early
    sleep 0.5
    "${runner[@]}" stop --time 60 "$tried" >/dev/null
    ended
    say "device: stopped before its first step, without a cap, status $status" "$([ "$status" = 130 ] && echo true)"
}

count() {
    local image round seed
    for image in ${ONLY:-device desk}; do
        good=0 kills=0 most=0
        if [ "$image" = device ]; then export_artifact; fi
        for round in $(seq "${ROUNDS:-20}"); do
            rm -rf "$shared/counted"
            seed=$((${FIRST_SEED:-1} + round - 1))
            if [ "$image" = device ]; then
                cap=400
                contained device 450000000b 4711:4711 run --model artifact --mem 400MB --steps 4 --seed "$seed" --out counted
            else
                cap=800
                contained desk 900000000b 4711:4711 run --mem 800MB --steps 4 --seed "$seed" --out counted
            fi
            if [ "$(whole "$image" "$cap" counted)" = true ]; then
                good=$((good + 1))
                peak=$(fact counted measured_peak_bytes)
                if [ "$peak" -gt "$most" ]; then most=$peak; fi
                echo "        $image, seed $seed: whole, $peak bytes held"
            else
                tail -n 3 "$shared/said"
            fi
            if [ "$kernel" != false ]; then kills=$((kills + 1)); fi
        done
        say "$image: $good of ${ROUNDS:-20} runs whole, $kills ended by the kernel, at most $most bytes held" \
            "$([ "$good" = "${ROUNDS:-20}" ] && [ "$kills" = 0 ] && echo true)"
    done
}

words=("$@")
if [ $# = 0 ]; then words=(build try); fi
for word in "${words[@]}"; do
    case $word in
    build | try | count) "$word" ;;
    *) echo "no '$word' here; it is build, try or count" >&2 && exit 2 ;;
    esac
done
exit "$failed"
