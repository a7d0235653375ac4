#!/bin/sh
# What a device can do, on an emulated 64-bit Arm: `tests/emulated/arm.sh FOLDER`.
#
# FOLDER, or $ARM_ROOT, gets a Debian root, and our wheel installed in a virtual environment as
# demos/raspberry_pi/README.md says; it is used again. It lies outside the repository (0.7 GB). Needs
# root, for chroot and mounts; the packages debootstrap and qemu-user-static; and a network the first
# time. MIRROR: of Debian. DESK: the Python that builds the wheel and downloads; DEVICE: the one that
# runs the same recipes here, to compare. QEMU_CPU: cortex-a76 is a Raspberry Pi 5, cortex-a72 a Pi 4.
# ARM_SECONDS: device tests begin no later than so many seconds after the first of them (an hour).
# ARM_ONLY: the steps to take, by the words after "==" (doctor alone caps ...); all of them otherwise.
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

if [ ! -e "$root/.files" ]; then
    mkdir -p "$root"
    debootstrap --arch=arm64 --foreign --variant=minbase \
        --include=python3,python3-venv,libgomp1,libstdc++6 bookworm "$root" "$mirror"
    # Its second stage would run every package's scripts in the emulator; files are all we need.
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    touch "$root/.files"
fi
wheels=$root/opt/wheels
clone=$root/opt/edge-train
rm -rf "$clone" "$root/opt/runs" "$wheels"/edge_train-*.whl
mkdir -p "$clone" "$root/opt/runs" "$wheels"
(cd "$here" && tar -cf - --exclude=__pycache__ edge_train export runtimes tests demos docs \
    pyproject.toml LICENSE NOTICE README.md) | tar -xf - -C "$clone"
(cd "$clone" && "$desk" -c \
    "from setuptools import build_meta; build_meta.build_wheel('$wheels')" > /dev/null 2>&1)
rm -rf "$clone/build" "$clone"/*.egg-info
ours=$(echo "$wheels"/edge_train-*.whl)
if [ ! -e "$root/.wheels" ]; then # what the wheel asks for, and pytest
    "$desk" -m pip download --quiet --only-binary=:all: --python-version 3.11 \
        --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
        -c "$here/constraints.txt" -d "$wheels" "${ours}[device]" pytest
    touch "$root/.wheels"
fi

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

# One thread of BLAS, as under a cap: with two, sums are in another order, and so are bits.
inside="chroot $root /usr/bin/env -i PATH=/opt/edge/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 \
    QEMU_CPU=$QEMU_CPU PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1"
waited() {
    "$@" &
    child=$!
    wait "$child" || { status=$? && child= && return "$status"; }
    child=
}
emulated() { waited $inside "$@"; } # a command of the root, with nothing of ours in its environment
support() { # a Python file of tests/, with its neighbours
    script=$1
    shift
    emulated env PYTHONPATH=/opt/edge-train/tests/support python3 "/opt/edge-train/tests/$script" "$@"
}
runs=$root/opt/runs
same() { cmp "$runs/$1/$3" "$runs/$2/$3"; }
# The parent of a step that is left out returns; `"$@"` of a step are its words.
wanted() {
    case " ${ARM_ONLY:-$1} " in *" $1 "*) echo "== $1: $2" ;; *) return 1 ;; esac
}
few="--threads 1 --steps 4 --no-previews"

install="pip install --quiet --disable-pip-version-check --no-index --find-links /opt/wheels"
if [ ! -e "$root/.installed" ]; then
    echo "== install: python3 -m venv, pip install 'edge-train[device]'"
    emulated python3 -m venv /opt/edge
    emulated $install 'edge-train[device]' pytest
    touch "$root/.installed"
fi
emulated $install --no-deps --force-reinstall edge-train

if wanted doctor "engines, processor, how a cap is kept"; then
    emulated edge-train doctor
fi
if wanted sums "integer products are exact"; then
    support support/emulated_products.py
fi
# With 1 GB a rehearsal would come first: the emulator holds memory too, and it takes minutes.
if wanted alone "the embedded photos and the artifact that comes with the program, under a cap"; then
    emulated edge-train run $few --mem 2GB --out /opt/runs/whole
fi
if wanted killed "killed after two records, resumed to the same bits"; then
    if support support/dying.py 3 0.01 run $few --out /opt/runs/killed; then
        stop "the run was not killed"
    fi
    emulated edge-train run --resume /opt/runs/killed
    for token in "$runs"/whole/*.safetensors; do same whole killed "$(basename "$token")"; done
fi
samples="--steps 8 --evaluation-samples 200 --test-samples 200"
network="--recipe /opt/edge-train/demos/tpsgd_fashion.toml $samples"
if wanted tpsgd "a network on NumPy, layer by layer; killed and resumed to the same bits"; then
    emulated edge-train run $network --mem 1GB --out /opt/runs/network
    if support support/dying.py 4 0.01 run $network --out /opt/runs/network-killed; then
        stop "the run was not killed"
    fi
    emulated edge-train run --resume /opt/runs/network-killed
    same network network-killed network.safetensors
fi
if wanted camera "the camera demo, a folder as camera, a tiny backbone of the tests"; then
    PYTHONPATH=$here:$here/tests/support "$desk" -c "import sys; from pathlib import Path
from tiny_backbone import write_backbone, write_classes
folder = Path(sys.argv[1]); folder.mkdir(exist_ok=True)
write_backbone(folder / 'tiny.onnx'); write_classes(folder / 'shown')" "$root/opt/camera"
    emulated python3 /opt/edge-train/demos/raspberry_pi/camera.py /opt/runs/pictures --every 9 \
        --model /opt/camera/tiny.onnx --camera /opt/camera/shown --runs /opt/runs/camera --mem 2GB
fi
if [ -x "$device" ] && wanted machines "the same recipes on this machine"; then
    (
        cd "$here"
        export PYTHONPATH="$here"
        "$device" -m edge_train run $few --mem 2GB --out "$runs/here"
        "$device" tests/support/two_machines.py "$runs/here" "$runs/whole"
        "$device" -m edge_train run --recipe demos/tpsgd_fashion.toml $samples --mem 1GB \
            --out "$runs/network-here"
        "$device" tests/support/two_networks.py "$runs/network-here" "$runs/network"
    )
fi
if wanted caps "ten runs under caps of 400 MB and more, watched from outside"; then
    for cap in 400MB 450MB 500MB 600MB 800MB; do
        for words in "run $few" "run $network"; do
            waited env PYTHONPATH="$here" "$desk" "$here/tests/emulated/watched.py" $cap 1800 \
                $inside edge-train $words --mem $cap --out /opt/runs/cap
            rm -rf "$runs/cap"
        done
    done
fi
if wanted tests "fast tests of the device environment, until ARM_SECONDS are over"; then
    ends=$(($(date +%s) + ${ARM_SECONDS:-3600}))
    files=$("$desk" -c "import sys; sys.path.insert(0, '$here/tests/support')
from environments import DEVICE
print(*sorted(DEVICE))")
    failed=
    for name in $files; do
        file=$(cd "$here" && find tests -name "$name.py")
        if [ "$(date +%s)" -gt "$ends" ]; then echo "$file: not begun, no time left"; continue; fi
        emulated sh -c "cd /opt/edge-train && exec python3 -m pytest -q -p no:cacheprovider \
            -m 'not process and not slow and not device' $file" || [ $? = 5 ] || failed="$failed $file"
    done
    [ -z "$failed" ] || stop "these failed:$failed"
fi
echo "arm: all is well on $QEMU_CPU"
