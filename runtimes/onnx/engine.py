"""ONNX Runtime: the installed flavor, its providers, and sessions whose numbers never drift."""

import ctypes
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_train.errors import InputError, ModelError
from edge_train.memory.measure import map_large_blocks
from edge_train.memory.shortage import is_shortage
from edge_train.quant import quants
from edge_train.runtimes.onnx.mapped_weights import MappedWeights

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
# What every provider is asked, for numbers that do not change from one start to the next. None of
# them was run by us; an option that an installed provider does not know is refused by the engine.
_OPTIONS: dict[str, dict[str, str]] = {
    # Not the fastest convolution of a race at the start: another one may win it next time.
    "cuda": {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
    "tensorrt": {"trt_fp16_enable": "0", "trt_int8_enable": "0"},
    "coreml": {"AllowLowPrecisionAccumulationOnGPU": "0"},
    "qnn": {"enable_htp_fp16_precision": "0"},
}
_DISTRIBUTIONS = ("onnxruntime", "ort_")  # how their names begin; ort_ are the nightly builds
_OLD_ENGINE = (1, 20)
_OLD_READS = {"ir": 10, "opset": 21}  # at most, by 1.19.2; 1.32.0 read all there was
_NEEDLESS = {"torch", "onnx"}
_NO_REPORTS = ("ORT_DISABLE_TELEMETRY", "1")  # read once, when the engine is loaded
_FATAL_ONLY = 4  # of the engine's own log: errors are raised, no need to print them as well


@dataclass(frozen=True)
class Provider:
    """An execution provider, by the user's and by the engine's name, and why it was taken."""

    device: str
    name: str
    reason: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: its type, and its shape with None for any length."""

    name: str
    shape: tuple[int | None, ...]
    kind: str = "tensor(float)"


def load_engine() -> Any:
    """Return the module `onnxruntime`.

    Its training flavor imports torch and onnx if it can, for 230 MB that inference never touches:
    where they are not here already, it is told that there are none. Newer engines report what they
    run to their maker and leave a number for this machine below the home folder, from their import
    on: not unless the user's own ORT_DISABLE_TELEMETRY says so.

    Raises:
      InputError: none is installed, or two that overwrite each other's files.
    """
    owners = _owners()
    if len(owners) > 1:
        raise InputError(
            f"{' and '.join(owners)} are both installed and overwrite each other's files; "
            f"`pip uninstall -y {' '.join(owners)}`, then install one of them."
        )
    if not owners:
        raise InputError(
            "no ONNX Runtime is installed; `pip install edge-train[device]` brings it."
        )
    os.environ.setdefault(*_NO_REPORTS)
    hidden = _NEEDLESS - sys.modules.keys() if "training" in owners[0] else set()
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own sign
    try:
        import onnxruntime
    except ImportError as error:
        if is_shortage(error):
            raise
        raise InputError(
            f"{owners[0]} is installed but cannot be loaded ({error}); install it again."
        ) from error
    finally:
        for name in hidden:
            del sys.modules[name]
    if not hasattr(onnxruntime, "InferenceSession"):  # a folder without its files still imports
        raise InputError(
            f"{owners[0]} has lost its files, as happens when another flavor of ONNX Runtime is "
            f"uninstalled; `pip install --force-reinstall --no-deps {owners[0]}`."
        )
    return onnxruntime


def installed_engine() -> tuple[str, tuple[str, ...]]:
    """Return the engine in words, such as `onnxruntime 1.32.0`, and the devices it was built for.

    Raises:
      InputError: there is none, or two, or a broken one.
    """
    engine = load_engine()
    offered = engine.get_available_providers()
    devices = tuple(name for name, provider in _PROVIDERS.items() if provider in offered)
    return f"{_owners()[0]} {engine.__version__}", devices


def _owners() -> list[str]:
    """Return the distributions that own the module `onnxruntime`.

    Found by the names of their metadata folders: to ask all distributions, as the standard library
    does, leaves 1.6 MB behind.
    """
    found = set()
    for entry in sys.path:
        for prefix in _DISTRIBUTIONS:
            for folder in Path(entry).glob(f"{prefix}*-info"):
                metadata = Distribution.at(folder)
                tops = (metadata.read_text("top_level.txt") or "").split()
                files = metadata.files or ()
                if "onnxruntime" in tops or any(file.parts[0] == "onnxruntime" for file in files):
                    found.add(metadata.metadata["Name"])
    if not found and find_spec("onnxruntime"):
        found.add("onnxruntime")  # built here, or what an uninstall left
    return sorted(found)


def check_engine(folder: Path, requires: Mapping[str, int]) -> None:
    """Refuse an artifact that the installed engine is known not to read.

    What is not known here is left to the engine, whose own refusal `open_session` passes on.

    Raises:
      InputError: no engine, or one that is too old.
    """
    version = load_engine().__version__
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers >= _OLD_ENGINE:
        return
    for word, most in _OLD_READS.items():
        if requires[word] > most:
            raise InputError(
                f"artifact {folder} needs ONNX {word} {requires[word]}, ONNX Runtime {version} "
                f"reads {most} at most; install a newer one, or export the model again with this "
                "version of edge-train."
            )


def pick_provider(device: str, quant: str, cap_bytes: int | None = None) -> Provider:
    """Return the provider that a device's name, or `auto`, means here.

    Args:
      cap_bytes: what the provider's memory arena may hold, where it has one.

    Raises:
      InputError: a name that is not known, or not offered by the installed engine.
    """
    offered = load_engine().get_available_providers()
    here = [name for name, provider in _PROVIDERS.items() if provider in offered]
    rounds = quants.get(quant).rounds_activations
    mixed = f"{quant} has its kernels on the cpu"
    if device == "auto":
        device, reason = "cpu", "no other provider is offered"
        if others := [name for name in here if name != "cpu"]:
            reason = f"others only when asked for: {', '.join(others)}"
        if "cuda" in here and rounds:
            reason = mixed
        elif "cuda" in here and not _nvidia_driver():
            reason = "the engine offers cuda, this machine has no NVIDIA driver"
        elif "cuda" in here:
            device, reason = "cuda", "the engine offers it"
    elif device not in here:
        raise InputError(
            f"device {device!r} is not offered by the installed ONNX Runtime; it has "
            f"{', '.join(here)}. Use --device {here[-1]}, or install the flavor that has it."
        )
    else:
        reason = "asked for"
        if device != "cpu" and rounds:
            reason = f"asked for; {mixed}: expect other numbers, and copies between both"
    options = dict(_OPTIONS.get(device, {}))
    if device == "cuda" and cap_bytes is not None:
        options |= {"gpu_mem_limit": str(cap_bytes), "arena_extend_strategy": "kSameAsRequested"}
    return Provider(device, _PROVIDERS[device], reason, options)


def _nvidia_driver() -> bool:
    """Return whether the driver's library loads; the engine offers CUDA where it does not, too."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def session_settings(threads: int) -> Any:
    """Return the session options that every graph is run with."""
    settings = load_engine().SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _FATAL_ONLY
    settings.use_deterministic_compute = True
    return settings


def load_graph(path: Path, settings: Any, providers: Sequence[Any]) -> Any:
    """Return an inference session.

    Raises:
      ModelError: the engine cannot read the graph.
    """
    engine = load_engine()
    try:
        return engine.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # the engine's errors share no base class
        if is_shortage(error):
            raise
        raise ModelError(
            f"{path}: ONNX Runtime {engine.__version__} cannot load it ({error}); export it again "
            "with this version of edge-train, or install a newer onnxruntime."
        ) from error


def open_session(
    path: Path,
    provider: Provider,
    *,
    threads: int,
    options: Mapping[str, str],
    lean: bool = False,
    pages: MappedWeights | None = None,
    as_written: bool = False,
) -> Any:
    """Return an inference session.

    Args:
      options: session options that the graph's numbers depend on.
      lean: use weights as they lie in memory or file and give memory back after every call;
        slower.
      pages: the graph's weights, to be read in place; they have to outlive the session.
      as_written: run the graph's nodes in their order and change none of them.

    Raises:
      ModelError: the engine cannot read the graph.
      InputError: the provider does not start on this machine.
    """
    settings = session_settings(threads)
    # A buffer that a later tensor of the same shape will use again stays allocated until then: of
    # a U-Net, every size of the way down until the way up. Without this a forward pass of Stable
    # Diffusion 1.5 holds 0.3 GB less, in the same time.
    settings.enable_mem_reuse = False
    for name, value in options.items():
        settings.add_session_config_entry(name, value)
    if lean:
        map_large_blocks()
        settings.enable_cpu_mem_arena = False
        settings.enable_mem_pattern = False
        settings.add_session_config_entry("session.disable_prepacking", "1")
    if as_written:
        settings.execution_order = load_engine().ExecutionOrder.PRIORITY_BASED
        settings.graph_optimization_level = load_engine().GraphOptimizationLevel.ORT_DISABLE_ALL
    if provider.device == "directml":
        settings.enable_mem_pattern = False  # it cannot; so says its page at onnxruntime.ai
    if pages is not None:
        for name, value in pages.lend(load_engine()).items():
            settings.add_initializer(name, value)
    session = load_graph(path, settings, [(provider.name, dict(provider.options))])
    if provider.name not in session.get_providers():
        raise InputError(
            f"device {provider.device!r} does not start on this machine (its libraries or its "
            "hardware are missing); use --device cpu."
        )
    return session


def check_values(path: Path, session: Any, inputs: Sequence[Value], outputs: Sequence[str]) -> None:
    """Refuse a graph that takes or gives anything else than the artifact's specification says.

    Raises:
      ModelError: naming the first difference.
    """
    found = {value.name: (value.type, tuple(value.shape)) for value in session.get_inputs()}
    for value in inputs:
        kind, shape = found.pop(value.name, ("missing", ()))
        fits = kind == value.kind and len(shape) == len(value.shape)
        for length, wanted in zip(shape, value.shape, strict=False):
            fits = fits and (not isinstance(length, int) if wanted is None else length == wanted)
        if not fits:
            expected = ["any" if length is None else length for length in value.shape]
            raise ModelError(
                f"{path}: input {value.name!r} is {kind} {list(shape)}, expected {value.kind} "
                f"{expected}; export the model again with this version of edge-train."
            )
    given = [value.name for value in session.get_outputs()]
    missing = [name for name in outputs if name not in given]
    if found or missing:
        raise ModelError(
            f"{path}: takes {sorted(found)} that nobody gives and lacks the outputs {missing}; "
            "export the model again with this version of edge-train."
        )


def call(session: Any, outputs: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
    """Return a graph's outputs.

    Raises:
      ModelError: the engine stopped in the middle of the graph.
    """
    try:
        results: list[Any] = session.run(outputs, feeds)
    except Exception as error:  # the engine's errors share no base class
        if is_shortage(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"ONNX Runtime stopped inside a graph ({reason}); export the model again, or use "
            "another version of it."
        ) from error
    return results
