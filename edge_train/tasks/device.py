"""Where engine torch computes: what `--device` comes to mean here, and why."""

from importlib.util import find_spec
from pathlib import Path

from edge_train.errors import InputError
from edge_train.memory.gpu import open_gpu_memory
from edge_train.units import format_bytes

# One of them is there where an NVIDIA driver is: Linux, Jetson, Windows below Linux. Without any,
# torch is not loaded to be asked.
_DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
# What a card has to have free beside a model's weights for `auto` to take it: a context, kernels
# and the activations of a step of the usual size. An estimate, not a measurement.
_BESIDE_BYTES = 2_000_000_000


FEATURES_ALONE = (
    "device cuda: features are computed there, once; the head is trained on the CPU, and --mem is "
    "about this machine"
)


def settle(device: str, task: str, weight_bytes: int) -> tuple[str, str]:
    """Return where a run computes, `cpu` or `cuda`, and why, where `auto` had a choice.

    `auto` is a card that has room for the weights and 2 GB beside them, else the CPU.

    Args:
      device: of the recipe.
      task: for messages.
      weight_bytes: that would lie on a card.

    Raises:
      InputError: another device, or `cuda` where torch finds none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"device {device!r} is not for task {task!r}, only cpu and cuda; leave it out."
        )
    if device == "cpu" or (device == "auto" and not has_driver()):
        return "cpu", ""
    if find_spec("torch") is None:  # which is said where the engine is looked for
        return "cpu", ""
    from edge_train.runtimes.torch.card import pick_device

    if device == "cuda":
        return pick_device(device).type, ""
    if pick_device(device).type == "cpu":
        return "cpu", "device cpu: torch sees no card, though a driver of one is here"
    free, needed = free_bytes(), weight_bytes + _BESIDE_BYTES
    if free < needed:
        return "cpu", (
            f"device cpu: the card has {format_bytes(free)} free, and this model with what a step "
            f"holds wants about {format_bytes(needed)}; --device cuda takes it all the same"
        )
    return "cuda", (
        f"device cuda: a card with {format_bytes(free)} free; --mem is about its memory, "
        "--host-mem about this machine's, and --device cpu leaves it alone"
    )


def features_device(device: str, task: str, engine: str) -> str:
    """Return where a frozen network computes features, once: on a card only where it is asked for.

    Args:
      engine: that computes it.

    Raises:
      InputError: the engine does not compute there, or torch finds no card.
    """
    if device == "cuda" and engine != "torch":
        raise InputError(
            f"device 'cuda' is not for task {task!r} with engine {engine!r}, which computes on the "
            "cpu; leave it out."
        )
    return settle("cpu" if device == "auto" else device, task, 0)[0]


def has_driver() -> bool:
    """Return whether this machine has the driver of an NVIDIA card."""
    return any(Path(one).exists() for one in _DRIVERS)


def free_bytes() -> int:
    """Return what the card with the most memory free has, as the driver says, else torch."""
    driver = open_gpu_memory()
    if driver is not None:
        return driver.free_bytes()
    import torch

    return int(torch.cuda.mem_get_info()[0])
