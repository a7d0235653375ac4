#!/bin/sh
# Install edge-train from the current folder into /opt/edge-train: `sh docker/install.sh KIND`.
#
# KIND is an extra of pyproject.toml: desk or device. TORCH_INDEX: where desk's torch comes from.
# ONNXRUNTIME: the engine in place of device's, as pip takes it; ONNXRUNTIME_INDEX: where it is.
set -eu

kind=$1
python3 -m venv /opt/edge-train
pip() {
    /opt/edge-train/bin/python -m pip --disable-pip-version-check "$@"
}

if [ "$kind" = desk ]; then
    # First and alone, so that nothing after it can choose another build of it.
    pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
fi
if [ -n "${ONNXRUNTIME:-}" ]; then
    # In place of the engine of the extra: two distributions of it own the same module.
    pip install --no-cache-dir -c constraints.txt .
    grep -v '^onnxruntime' constraints.txt >/tmp/constraints.txt
    pip install --no-cache-dir -c /tmp/constraints.txt \
        ${ONNXRUNTIME_INDEX:+--extra-index-url "$ONNXRUNTIME_INDEX"} "$ONNXRUNTIME"
else
    pip install --no-cache-dir -c constraints.txt ".[$kind]"
fi

# Out with what no run reads: tests, headers, programs of tests. Nothing is installed later on, so
# pip goes too; torch asks for setuptools when it is imported in part, nothing of device does. Nor
# does a device download models by name, or write graphs.
site=$(/opt/edge-train/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
find "$site" -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \
    -o -path '*/onnx/backend/test' \) -prune -exec rm -rf {} +
find "$site" -path '*/torch/bin/test_*' -delete
if [ "$kind" = device ]; then
    # shellcheck disable=SC2046 # a name is a word
    pip uninstall --yes setuptools $(/opt/edge-train/bin/python docker/unread.py)
    rm -rf "$site/onnxruntime/transformers" "$site/onnxruntime/quantization" "$site/onnxruntime/tools"
    # The engine once more, for programs in C; a vendor's wheel may link to it.
    [ -n "${ONNXRUNTIME:-}" ] || rm -f "$site"/onnxruntime/capi/libonnxruntime.so*
fi
pip uninstall --yes pip
