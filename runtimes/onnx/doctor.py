"""What `edge-train doctor` says of ONNX Runtime."""

from edge_train.errors import InputError
from edge_train.runtimes.onnx import products
from edge_train.runtimes.onnx.engine import installed_engine, pick_provider


def examine() -> list[str]:
    """Return the findings, a line each."""
    try:
        engine, devices = installed_engine()
    except InputError as error:
        return [f"onnxruntime: {error}"]
    flavor = "training flavor, " if "training" in engine else ""
    auto = pick_provider("auto", "none")
    return [
        f"{engine}: {flavor}runtime onnx, devices {', '.join(devices)}",
        f"  auto is {auto.device}: {auto.reason}",
        f"  {_products()}",
    ]


def _products() -> str:
    try:
        return products.examine()
    except InputError as error:
        return str(error)
