"""What `edge-train doctor` says of torch."""

import importlib.util
from importlib.metadata import PackageNotFoundError, version


def examine() -> list[str]:
    """Return the findings, a line each."""
    if importlib.util.find_spec("torch") is None:
        return ["torch: not installed; `pip install edge-train[desk]` brings the torch runtime"]
    import torch

    lines = [f"torch {torch.__version__}: runtime torch, device cpu"]
    if torch.cuda.is_available():
        lines += [
            f"  cuda: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())
        ]
    for name in ("diffusers", "transformers", "optimum-quanto"):
        lines.append(f"  {name}: {_version(name) or 'missing; `pip install edge-train[desk]`'}")
    return lines


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
