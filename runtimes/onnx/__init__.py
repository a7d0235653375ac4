"""The engine ONNX Runtime: exported artifacts, forward only, or with gradients of classifiers."""

from edge_train.runtimes.engine import Engine

_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
)
# "Full-size Stable Diffusion 1.5 on ONNX Runtime" in the benchmarks has the gains.
ENGINES = (
    Engine(
        name="onnx",
        says="ONNX Runtime, forward only; exported models",
        distributions=_DISTRIBUTIONS,
        exact_repeats=False,
        gains={"int8-fast": 3.0, "int4": 2.1},
        doctor="edge_train.runtimes.onnx.doctor:examine",
    ),
    Engine(
        name="ort-training",
        says="onnxruntime-training, with gradients; exported classifiers",
        distributions=_DISTRIBUTIONS,
    ),
)
