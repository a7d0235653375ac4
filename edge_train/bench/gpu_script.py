"""One measurement of `bench gpu` in a process of its own: diffusers' loop, or what is installed."""

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "diffusers", "transformers", "optimum-quanto", "peft", "onnxruntime-gpu")


def machine(device: str) -> dict[str, Any]:
    """Return what is computed on: the card, its memory and driver, and packages by version."""
    import torch

    found: dict[str, Any] = {"processor": platform.machine(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("torch sees no card; nothing of this can be measured.")
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "card_bytes": card.total_memory,
            "capability": f"{card.major}.{card.minor}",
            "integrated": bool(card.is_integrated),
            "cuda": torch.version.cuda,
        }
    return found


def script(model: Path, steps: int, dtype: str, device: str, side: int) -> dict[str, Any]:
    """Take steps of diffusers' textual inversion; return their seconds and the peak on the card."""
    import torch

    from edge_train.bench.sd15_scripts import textual_inversion
    from edge_train.memory.gpu import open_gpu_memory

    driver = open_gpu_memory() if device == "cuda" else None
    found = textual_inversion(model, steps, dtype, device, side)
    if device == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_reserved()
        if driver is not None:  # all that was taken is still reserved
            found["peak_bytes"] = max(found["peak_bytes"], driver.most())
    return {
        "seconds_per_step": found["wall_seconds"],
        "measured_peak_bytes": found["peak_bytes"],
        "dtype": dtype,
        "device": device,
        "status": "done",
    }


def measured(words: list[str]) -> None:
    """Print what `machine DEVICE` or `script MODEL STEPS DTYPE DEVICE SIDE` found, as JSON."""
    if words[0] == "machine":
        found = machine(words[1])
    else:
        found = script(Path(words[1]), int(words[2]), words[3], words[4], int(words[5]))
    print(json.dumps(found))


if __name__ == "__main__":
    measured(sys.argv[1:])
