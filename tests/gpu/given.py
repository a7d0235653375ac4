"""Whether the Python that was given can check or measure a card."""

import sys
from importlib.metadata import PackageNotFoundError, version

_OLDEST_TORCH = (2, 8)
_SHOWN = (
    *("torch", "numpy", "transformers", "accelerate", "diffusers", "optimum-quanto", "peft"),
    *("onnxruntime-gpu", "onnxruntime"),
)


def unusable(device: str, command: str) -> str:
    """Return why nothing can be done with this Python; empty where something can.

    Args:
      device: `cuda` or `cpu`.
      command: that another Python would be named to.
    """
    try:
        import numpy  # noqa: F401
        import safetensors  # noqa: F401
        import torch
    except ModuleNotFoundError as error:
        return f"{sys.executable} has no {error.name}; name a Python that has: {command} PYTHON=..."
    numbers = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if numbers < _OLDEST_TORCH:
        return f"torch is {torch.__version__}, must be 2.8 or newer."
    if device == "cuda" and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} sees no card; `nvidia-smi` says whether there is a driver."
        )
    return ""


def about(device: str) -> list[str]:
    """Return what is installed and what it computes on, a line each."""
    lines = []
    for name in _SHOWN:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} is not here")
    if device == "cuda":
        import torch

        lines.append(f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    return lines
