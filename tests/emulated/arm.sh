#!/bin/sh
# Run the core of the device suite on an emulated 64-bit Arm: `tests/emulated/arm.sh FOLDER`.
#
# FOLDER, or $ARM_ROOT, gets a Debian root, the aarch64 wheels of the device environment and an
# exported model; it is used again. It lies outside the repository (about 0.6 GB). Needs root, for
# chroot and mounts; the packages debootstrap and qemu-user-static; and a network the first time.
# MIRROR: of Debian. DESK: the Python that exports and downloads; DEVICE: the one that runs the same
# recipe here, to compare. QEMU_CPU: cortex-a76 is a Raspberry Pi 5, cortex-a72 a Pi 4.
#
# An emulator proves that it runs, and which bits come out; never how fast it is.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
root=${1:-${ARM_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/edge-train/arm-root}}
mirror=${MIRROR:-http://deb.debian.org/debian}
desk=${DESK:-$here/.venv/bin/python}
device=${DEVICE:-$here/.venv-device/bin/python}
: "${QEMU_CPU:=cortex-a76}"
export QEMU_CPU

stop() { echo "$1" >&2; exit 2; }
[ "$(id -u)" = 0 ] || stop "arm.sh needs root, for chroot and mounts; run it with sudo -E."
for tool in debootstrap qemu-aarch64-static unshare; do
    command -v "$tool" > /dev/null || stop \
        "$tool is not here; apt-get install -y debootstrap qemu-user-static util-linux"
done
# All mounts live in a namespace of our own: they end with this script, however it ends.
if [ "${ARM_INSIDE:-}" != yes ]; then
    export ARM_INSIDE=yes
    exec unshare --mount --propagation private -- "$0" "$root"
fi

if [ ! -e "$root/.ready" ]; then
    mkdir -p "$root"
    debootstrap --arch=arm64 --foreign --variant=minbase \
        --include=python3,libgomp1,libstdc++6 bookworm "$root" "$mirror"
    # Its second stage would run every package's scripts in the emulator; files are all we need.
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    version() { sed -n "s/^$1==\([^;]*\).*/\1/p" "$here/constraints.txt" | tr -d ' '; }
    wheels=$root/opt/wheels
    mkdir -p "$wheels" "$root/opt/site"
    "$desk" -m pip download --quiet --only-binary=:all: --no-deps --python-version 3.11 \
        --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 -d "$wheels" \
        "onnxruntime==$(version onnxruntime)" "numpy==$(version numpy)" "pillow==$(version pillow)" \
        "safetensors==$(version safetensors)" "tokenizers==$(version tokenizers)" \
        flatbuffers protobuf packaging
    for wheel in "$wheels"/*.whl; do "$desk" -m zipfile -e "$wheel" "$root/opt/site"; done
    touch "$root/.ready"
fi
if [ ! -e "$root/opt/model/manifest.json" ]; then
    (cd "$here" && PYTHONPATH=$here "$desk" -m edge_train export tiny-sd "$root/opt/model" \
        --quant int8-fast --threads 1)
fi
rm -rf "$root/opt/edge-train" "$root/opt/runs"
mkdir -p "$root/opt/edge-train" "$root/opt/runs"
(cd "$here" && tar -cf - --exclude=__pycache__ edge_train export runtimes tests pyproject.toml) |
    tar -xf - -C "$root/opt/edge-train"

# A shell hears a signal only after the program in its foreground, so programs run in the background.
registered=no child=
leave() {
    [ -z "$child" ] || kill "$child" 2> /dev/null || true
    [ "$registered" = no ] || echo -1 > /proc/sys/fs/binfmt_misc/qemu-aarch64
}
trap leave EXIT
trap 'exit 130' INT TERM HUP

# /sys stays unbound: with it, onnxruntime reads the host's processor there and crashes.
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
handler=/proc/sys/fs/binfmt_misc
[ -e $handler/register ] || mount -t binfmt_misc binfmt_misc $handler
if [ ! -e $handler/qemu-aarch64 ]; then
    # The kernel keeps a handler for all: it goes when we go, if it was not there before.
    registered=yes
    cat /usr/lib/binfmt.d/qemu-aarch64.conf > $handler/register
fi

arm() {
    chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 \
        QEMU_CPU="$QEMU_CPU" PYTHONDONTWRITEBYTECODE=1 \
        PYTHONPATH=/opt/edge-train:/opt/edge-train/tests/support:/opt/site \
        python3 "$@" &
    child=$!
    wait "$child" || { status=$? && child= && return "$status"; }
    child=
}
same() { cmp "$root/opt/runs/whole/$1" "$root/opt/runs/killed/$1"; }

echo "== doctor"
arm -m edge_train doctor
echo "== exact sums"
arm /opt/edge-train/tests/support/emulated_products.py
# With 1 GB a rehearsal would come first: the emulator holds memory too, and it takes minutes.
echo "== four steps under a cap"
steps="--threads 1 --steps 4 --no-previews"
arm -m edge_train run --model /opt/model $steps --mem 2GB --out /opt/runs/whole
echo "== killed after two records, resumed to the same bits"
if arm /opt/edge-train/tests/support/dying.py 3 0.01 run --model /opt/model $steps \
    --out /opt/runs/killed; then
    stop "the run was not killed"
fi
arm -m edge_train run --resume /opt/runs/killed
for token in "$root"/opt/runs/whole/*.safetensors; do same "$(basename "$token")"; done
if [ -x "$device" ]; then
    echo "== the same recipe on this machine"
    cd "$here"
    export PYTHONPATH="$here"
    "$device" -m edge_train run --model "$root/opt/model" $steps --mem 2GB \
        --out "$root/opt/runs/here"
    "$device" tests/support/two_machines.py "$root/opt/runs/here" "$root/opt/runs/whole"
fi
echo "arm: all is well on $QEMU_CPU"
