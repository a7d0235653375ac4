"""The bytes a run will hold, line by line and phase by phase, before its first step.

A run prepares (photos through the VAE, texts to tokens), trains, then saves and draws. What one
phase lets go of the next one does not pay for, so the peak is that of the largest phase. Two ways
lead to a plan. A *rehearsal* (`rehearsal.py`) runs all phases once, with two steps, and measures
them. An *estimate* knows the libraries as they were measured, weights from file headers, states
from `init` on shapes, and activations from the constants below; it is what large models get, which
are never loaded just to plan, and what tells whether a rehearsal is needed at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from edge_train.artifact import Artifact
from edge_train.jobs.protocol import Job
from edge_train.memory import measure
from edge_train.models import ModelFolder
from edge_train.recipe import Recipe
from edge_train.tensor_file import TensorFile
from edge_train.training_artifact import WEIGHTS, TrainingArtifact
from edge_train.units import format_bytes

# Weight files above this are never loaded to plan; below it a rehearsal takes seconds.
LARGE_BYTES = 400_000_000
# What an estimate may be off by: a cap this many times larger needs no rehearsal; a large model
# whose estimate, times the second, is above the cap is refused without trying.
NEAR = 3.0
_SURELY = 0.8

_LIBRARIES = {
    "torch": (
        "torch",
        "diffusers.models.unets.unet_2d_condition",
        "diffusers.models.autoencoders.autoencoder_kl",
        "transformers.models.clip.modeling_clip",
        "edge_train.runtimes.torch_diffusion",
    ),
    "onnx": ("edge_train.runtimes.onnx_diffusion", "edge_train.runtimes.onnx_vae"),
}
_TEXT_LIBRARIES = {
    "torch": ("torch", "edge_train.runtimes.torch_classifier"),
    "ort-training": ("edge_train.runtimes.ort_training",),
}

# Bytes of a forward pass per latent cell and channel of the first U-Net level, in items of the
# activation type; of a recomputing backward pass beside it. From `edge-train bench sd15`:
# 0.3 GB and 0.7 GB at 64 x 64 cells and 320 channels in float32.
_FORWARD_ITEMS, _BACKWARD_ITEMS = 57, 135
# The same of the VAE, per pixel and channel of its first level, float32.
_ENCODE_ITEMS, _DECODE_ITEMS = 5, 8
_CELLS_PER_CALL, _SAMPLES_PER_CALL = 4_096, 64  # as the runtimes choose
_PIXELS_PER_CALL = 65_536
# `forward_bytes` of a manifest includes an interpreter with numpy and ONNX Runtime.
_BARE_ENGINE_BYTES = 56_000_000
_WEIGHT_ITEMS = {"none": 4.0, "int8": 1.0, "int8-fast": 1.0, "int4": 0.5}
_ACTIVATION_ITEMS = {"float32": 4, "bfloat16": 2, "float16": 2}
# Code and buffers that an engine touches at its first pass, beside what loading it took: on the
# embedded model, a rehearsal less everything else here.
_FIRST_USE_BYTES = {"torch": 70_000_000, "ort-training": 30_000_000, "onnx": 0}
_STATE_COPIES = 4  # of the trained blocks: live, best, the last good ones, the update


@dataclass(frozen=True)
class Line:
    """One thing that is held, and its bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Phase:
    """What is held at once; lines add up."""

    name: str
    lines: tuple[Line, ...]

    @property
    def bytes(self) -> int:
        """The sum of the lines."""
        return sum(line.bytes for line in self.lines)


@dataclass(frozen=True)
class Plan:
    """A predicted run.

    Attributes:
      source: `rehearsal` where every phase was measured, `estimate` where it was computed.
      seconds_per_step: of a step of training, None where it was not measured.
    """

    phases: tuple[Phase, ...]
    source: str
    seconds_per_step: float | None = None

    @property
    def peak_bytes(self) -> int:
        """The largest phase: what the cap has to hold."""
        return max(phase.bytes for phase in self.phases)

    @property
    def largest(self) -> tuple[Line, ...]:
        """The two largest lines of the largest phase."""
        phase = max(self.phases, key=lambda phase: phase.bytes)
        return tuple(sorted(phase.lines, key=lambda line: -line.bytes)[:2])

    def record(self) -> dict[str, Any]:
        """Return plain values for `plan.json`."""
        phases = [{**asdict(phase), "bytes": phase.bytes} for phase in self.phases]
        return {
            "version": 1,
            "peak_bytes": self.peak_bytes,
            "source": self.source,
            "seconds_per_step": self.seconds_per_step,
            "phases": phases,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Plan":
        """Return the plan that `record` was made of."""
        phases = tuple(
            Phase(phase["name"], tuple(Line(**line) for line in phase["lines"]))
            for phase in record["phases"]
        )
        return cls(phases, record["source"], record["seconds_per_step"])

    def text(self) -> str:
        """Return every line of every phase, for people.

        >>> print(Plan((Phase("train", (Line("weights", 2_000_000),)),), "estimate").text())
        train                                     2 MB
          weights                                 2 MB
        peak, the largest phase                   2 MB  (estimate)
        """
        rows = []
        for phase in self.phases:
            rows.append(f"{phase.name:<34}{format_bytes(phase.bytes):>12}")
            rows += [f"  {line.name:<32}{format_bytes(line.bytes):>12}" for line in phase.lines]
        peak = format_bytes(self.peak_bytes)
        rows.append(f"{'peak, the largest phase':<34}{peak:>12}  ({self.source})")
        return "\n".join(rows)


def needs(plan: Plan, cap_bytes: int) -> str:
    """Return the first two sentences of a refusal.

    >>> plan = Plan((Phase("train", (Line("weights", 2 * 10**9),)),), "estimate")
    >>> needs(plan, 10**9)
    'plan needs 2 GB, cap is 1 GB (--mem 1GB). Largest: weights 2 GB.'
    """
    largest = ", ".join(f"{line.name} {format_bytes(line.bytes)}" for line in plan.largest)
    cap = format_bytes(cap_bytes)
    return (
        f"plan needs {format_bytes(plan.peak_bytes)}, cap is {cap} "
        f"(--mem {cap.replace(' ', '')}). Largest: {largest}."
    )


def load_libraries(recipe: Recipe) -> int:
    """Import what a run will import; return the resident bytes of this process tree after it."""
    table = _LIBRARIES if recipe.task == "personalize" else _TEXT_LIBRARIES
    for name in table.get(recipe.runtime, ()):
        import_module(name)
    return measure().resident_bytes


def with_remainder(name: str, peak_bytes: int, lines: Sequence[Line]) -> Phase:
    """Return a phase of a measured peak: known lines, and activations as what they leave.

    Weights that were let go, or stay in a file nobody read, cannot be held: what is more than the
    peak is taken off the last line.

    >>> [line.bytes for line in with_remainder("train", 10, [Line("a", 4), Line("b", 9)]).lines]
    [4, 6, 0]
    """
    kept, left = [], peak_bytes
    for line in lines:
        kept.append(replace(line, bytes=min(line.bytes, left)))
        left -= kept[-1].bytes
    return Phase(name, (*kept, Line("activations and workspace", left)))


def known_lines(job: Job, base_bytes: int) -> dict[str, list[Line]]:
    """Return, by phase, every line but the activations: what headers and shapes tell.

    Args:
      base_bytes: interpreter, supervisor and libraries, measured.
    """
    base = Line("interpreter and libraries", base_bytes)
    parts = weights(job)
    lean = " (in their file)" if job.recipe.lean else ""
    step = Line(f"weights{lean}", parts["step"])
    state = Line("optimizer state and copies", _state_bytes(job))
    return {
        "prepare": [base, Line("weights of the VAE's encoder", parts["encoder"])],
        "train": [base, step, state],
        "save and draw": [
            base,
            step,
            state,
            Line("weights of the VAE's decoder", parts["decoder"]),
        ],
    }


def weights(job: Job) -> dict[str, int]:
    """Return the bytes of weights, as loaded, of the trained step and of the VAE's halves."""
    model, recipe = job.model, job.recipe
    if isinstance(model, Artifact):
        sizes = dict.fromkeys(("step", "vae_encoder", "vae_decoder"), 0)
        for tensor in model.manifest.tensors:
            sizes[tensor.file.removesuffix(".weights")] += tensor.bytes
        return {
            "step": sizes["step"],
            "encoder": sizes["vae_encoder"],
            "decoder": sizes["vae_decoder"],
        }
    if isinstance(model, ModelFolder):
        names = ("unet", *model.text_encoders)
        tables = sum(_table_items(model, name) for name in model.text_encoders)
        items = sum(model.parameter_count(name) for name in names) - tables
        width = _ACTIVATION_ITEMS.get(recipe.dtype, 4)
        each = min(_WEIGHT_ITEMS[recipe.quant], width) if recipe.quant != "none" else width
        half = 4 * model.parameter_count("vae") // 2
        return {"step": int(items * each), "encoder": half, "decoder": half}
    files = model.weight_files() if hasattr(model, "weight_files") else _weight_files(model)
    items = sum(int(np.prod(e.shape)) for file in files for e in file.entries.values())
    return {"step": 4 * items, "encoder": 0, "decoder": 0}


def _weight_files(model: TrainingArtifact) -> tuple[TensorFile, ...]:
    return (TensorFile(model.path / WEIGHTS),)


def _table_items(model: ModelFolder, component: str) -> int:
    file, name = model.token_table(component)
    return int(np.prod(file.entries[name].shape))


def _state_bytes(job: Job) -> int:
    """Return the bytes of the optimizer's state, by its own `init`, and of copies of the blocks."""
    _, transform = job.method(0.1, dict.fromkeys(job.block_shapes, 1.0))
    total = 0
    for shape in job.block_shapes.values():
        block = np.empty(shape, np.float32)  # pages that nobody writes are not held
        total += sum(part.nbytes for part in transform.init(block).values())
        total += _STATE_COPIES * block.nbytes
    queries = (job.recipe.queries or 0) * (job.recipe.sides or 1)
    return total + queries * sum(4 * int(np.prod(s)) for s in job.block_shapes.values())


def is_large(job: Job) -> bool:
    """Return whether a model is too large to be loaded just to plan."""
    model = job.model
    if isinstance(model, ModelFolder):
        names = (*model.components,)
        paths = [path for name in names for path in model.weight_files(name)]
        return sum(path.stat().st_size for path in paths) > LARGE_BYTES
    return sum(weights(job).values()) > LARGE_BYTES


def estimate(job: Job, base_bytes: int) -> Plan:
    """Return a plan without loading the model.

    Args:
      base_bytes: interpreter, supervisor and libraries, measured.
    """
    lines = known_lines(job, base_bytes)
    workspace = _activations(job)
    phases = []
    first = Line("engine at its first pass", _FIRST_USE_BYTES[job.recipe.runtime])
    for name, known in lines.items():
        if name == "save and draw" and not (job.recipe.previews and workspace[name]):
            continue
        work = Line("activations and workspace", workspace[name])
        phases.append(Phase(name, (*known, first, work)))
    return Plan(tuple(phases), "estimate")


def _activations(job: Job) -> dict[str, int]:
    """Return the bytes of activations by phase, from the constants above."""
    model, recipe = job.model, job.recipe
    if not isinstance(model, Artifact | ModelFolder):
        texts = (recipe.batch_limit or recipe.samples or 1) * (recipe.length or 128)
        blocks = sum(int(np.prod(shape)) for shape in job.block_shapes.values())
        # each weight meets each token once; what a layer keeps grows with the root of its size
        kept = int(24 * texts * np.sqrt(blocks))
        return {"prepare": 0, "train": kept + 4 * blocks, "save and draw": 0}
    side = recipe.resolution or model.resolution
    cells = (side // model.latent_scale) ** 2
    together = max(1, min(_SAMPLES_PER_CALL, _CELLS_PER_CALL // cells))
    samples = min(together, recipe.batch_limit or together, _most_samples(recipe))
    pictures = min(max(1, _PIXELS_PER_CALL // side**2), recipe.batch_limit or _SAMPLES_PER_CALL)
    vae_width = 128
    if isinstance(model, ModelFolder):
        channels = int(model.configs["unet"]["block_out_channels"][0])
        vae_width = int(model.configs["vae"]["block_out_channels"][0])
        width = _ACTIVATION_ITEMS.get(recipe.dtype, 4)
        each = cells * channels * width
        train = each * _FORWARD_ITEMS * samples
        if recipe.method == "backprop":
            train = max(train, each * (_FORWARD_ITEMS + _BACKWARD_ITEMS) * max(1, samples // 4))
    else:
        one = model.manifest.forward_bytes - _BARE_ENGINE_BYTES - weights(job)["step"]
        train = max(one, 0) * samples // min(2, together)  # the export measured two at once
        vae_width = 32 if side <= 64 else vae_width
    pixels = 4 * side * side * vae_width * pictures
    return {
        "prepare": _ENCODE_ITEMS * pixels,
        "train": train,
        "save and draw": max(_DECODE_ITEMS * pixels, train),
    }


def _most_samples(recipe: Recipe) -> int:
    """Return how many samples the largest call could have: that of the evaluation, or a step."""
    step = (recipe.samples or 1) * ((recipe.queries or 0) * (recipe.sides or 1) + 1)
    return max(recipe.evaluation_samples or 1, step)


def surely_above(plan: Plan, cap_bytes: int) -> bool:
    """Return whether a cap cannot hold a run, whatever the estimate is off by."""
    return plan.peak_bytes * _SURELY > cap_bytes


def is_far(plan: Plan, cap_bytes: int | None) -> bool:
    """Return whether a cap is so large that it does not matter what exactly is held."""
    return cap_bytes is None or plan.peak_bytes * NEAR <= cap_bytes
