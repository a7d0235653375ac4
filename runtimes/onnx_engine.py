"""ONNX Runtime: the installed flavor, its providers, and sessions whose numbers never drift."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from edge_train.errors import InputError, ModelError
from edge_train.memory import map_large_blocks
from edge_train.runtimes.mapped_weights import MappedWeights

# What a user types, and what the engine calls it.
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# com.microsoft operators on rounded activations have their fast kernels on the CPU only.
_CPU_PROFILES = ("int8-fast", "int4")
_NEEDLESS = {"torch", "onnx"}
_FATAL_ONLY = 4  # of the engine's own log: errors are raised, no need to print them as well


@dataclass(frozen=True)
class Provider:
    """An execution provider, by the user's and by the engine's name, and why it was taken."""

    device: str
    name: str
    reason: str


def load_engine() -> Any:
    """Return the module `onnxruntime`.

    Its training flavor imports torch and onnx if it can, for 230 MB that inference never touches:
    where they are not here already, it is told that there are none.

    Raises:
      InputError: none is installed, or two that overwrite each other's files.
    """
    owners = sorted(set(packages_distributions().get("onnxruntime", ())))
    if len(owners) > 1:
        raise InputError(
            f"{' and '.join(owners)} are both installed and overwrite each other's files; "
            f"`pip uninstall -y {' '.join(owners)}`, then install one of them."
        )
    if not owners:
        raise InputError(
            "no ONNX Runtime is installed; `pip install edge-train[device]` brings it."
        )
    hidden = _NEEDLESS - sys.modules.keys() if "training" in owners[0] else set()
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own sign
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{owners[0]} is installed but cannot be loaded ({error}); install it again."
        ) from error
    finally:
        for name in hidden:
            del sys.modules[name]
    return onnxruntime


def pick_provider(device: str, quant: str) -> Provider:
    """Return the provider that a device's name, or `auto`, means here.

    Raises:
      InputError: a name that is not known, or not offered by the installed engine.
    """
    offered = load_engine().get_available_providers()
    here = [name for name, provider in _PROVIDERS.items() if provider in offered]
    if device == "auto":
        if "cuda" in here and quant not in _CPU_PROFILES:
            return Provider("cuda", _PROVIDERS["cuda"], "the engine offers it")
        reason = "no other provider is offered"
        if "cuda" in here:
            reason = f"{quant} has its kernels there"
        return Provider("cpu", _PROVIDERS["cpu"], reason)
    if device not in here:
        raise InputError(
            f"device {device!r} is not offered by the installed ONNX Runtime; it has "
            f"{', '.join(here)}. Use --device {here[-1]}, or install the flavor that has it."
        )
    return Provider(device, _PROVIDERS[device], "asked for")


def open_session(
    path: Path,
    provider: Provider,
    *,
    threads: int,
    options: Mapping[str, str],
    lean: bool = False,
    pages: MappedWeights | None = None,
) -> Any:
    """Return an inference session.

    Args:
      options: session options that the graph's numbers depend on.
      lean: use weights as they lie in memory or file and give memory back after every call;
        slower.
      pages: the graph's weights, to be read in place; they have to outlive the session.

    Raises:
      ModelError: the engine cannot read the graph.
      InputError: the provider does not start on this machine.
    """
    engine = load_engine()
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _FATAL_ONLY
    settings.use_deterministic_compute = True
    for name, value in options.items():
        settings.add_session_config_entry(name, value)
    if lean:
        map_large_blocks()
        settings.enable_cpu_mem_arena = False
        settings.enable_mem_pattern = False
        # A buffer that is "reused" by a later one of its size lives in between: at 512 pixels the
        # widest ones of the way down wait for the way up, three times what is ever in use at once.
        settings.enable_mem_reuse = False
        settings.add_session_config_entry("session.disable_prepacking", "1")
    if pages is not None:
        for name, value in pages.lend(engine).items():
            settings.add_initializer(name, value)
    try:
        session = engine.InferenceSession(str(path), settings, providers=[provider.name])
    except Exception as error:  # the engine's errors share no base class
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise
        raise ModelError(
            f"{path}: ONNX Runtime {engine.__version__} cannot load it ({error}); export it again "
            "with this version of edge-train, or install a newer onnxruntime."
        ) from error
    if provider.name not in session.get_providers():
        raise InputError(
            f"device {provider.device!r} does not start on this machine (its libraries or its "
            "hardware are missing); use --device cpu."
        )
    return session
