"""What a job says of the bytes its run will hold, from file headers and shapes, nothing loaded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_train.protocols import ByBlock, Transform

# The phases of a run. What one lets go of, the next does not pay for.
PREPARE, TRAIN, SAVE = "prepare", "train", "save and draw"


ONNX_BYTES = 90_000_000  # two interpreters and ONNX Runtime, measured
_WITH_ANYTHING = 1.05  # times what libraries hold: no run of any kind was seen to need less


@dataclass(frozen=True)
class PlanLine:
    """One thing that is held, and its bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Footprint:
    """What a run holds beside interpreter and libraries.

    Attributes:
      libraries: modules that the run imports, the heavy ones among them.
      model_bytes: weights as they lie in files; large models are not loaded just to plan.
      known: lines by phase, exact to headers and shapes: weights, data, state.
      workspace: activations by phase, in bytes, estimated; zero where a phase has none.
      first_use_bytes: code and buffers that the engine touches at its first pass.
      libraries_bytes: what interpreters and libraries held when this was written; every plan
        measures them anew, but a cap that cannot hold them is refused before they load.
      operations: floating-point ones of a forward pass of one sample, 0 where nobody counted.
      moved: numbers that go into the products of that pass and come out, 0 where nobody counted.
      products: of matrices in that pass.
      together: samples in a call of the engine at most, where nothing is differentiated.
      evaluated: samples that there are to evaluate on, 0 where nobody counted; a recipe may ask
        for fewer.
      before: samples that pass before the first evaluation: of pictures that a run draws to learn
        from, or that a backbone turns into features.
      before_operations: floating-point ones of such a sample; 0: as of a step's.
      beside: samples that a step takes for each one that the recipe says.
      after: samples that pass when the last step was taken: of pictures and scores.
      written: tokens of a text that is written before the first step and after the last one, each
        a call of its own.
      backward: forward passes that a backward pass is worth, 0 where it is as the task says.
      trained: numbers that a step changes.
      opened: why the network itself had to be opened to count it; empty where files tell.
      mapped_bytes: weights of the trained model that are read in place from their file.
      job_bytes: of the lines of every phase, what the job holds from its opening on; who measures
        interpreter and libraries beside an opened job takes it off.
      folder: what the run folder holds at most beside its journal and report (`folder_lines`).
    """

    libraries: tuple[str, ...]
    model_bytes: int
    known: Mapping[str, tuple[PlanLine, ...]]
    workspace: Mapping[str, int] = field(default_factory=dict)
    first_use_bytes: int = 0
    libraries_bytes: int = 0
    operations: float = 0.0
    moved: float = 0.0
    products: int = 0
    together: int = 1
    evaluated: int = 0
    before: int = 0
    before_operations: float = 0.0
    beside: int = 1
    after: int = 0
    written: int = 0
    backward: int = 0
    trained: int = 0
    opened: str = ""
    mapped_bytes: int = 0
    job_bytes: int = 0
    folder: tuple[PlanLine, ...] = ()


def has_room(cap_bytes: int | None, libraries_bytes: int) -> bool:
    """Return whether a cap holds libraries and anything at all beside them.

    Asked before they are loaded: an engine maps its code with the interpreter's lock held, so
    nobody can look meanwhile, and no data limit counts it.
    """
    return cap_bytes is None or libraries_bytes * _WITH_ANYTHING <= cap_bytes


def lines_of(*lines: PlanLine) -> tuple[PlanLine, ...]:
    """Return the lines that have any bytes."""
    return tuple(line for line in lines if line.bytes)


_LARGE_BLOCK = 4_000_000  # numbers
_STEP = 4096  # of a side: of this many numbers, each group that a rule keeps a scale of is whole
_STEP_FILES, _BEST_FILES = 3, 3  # two of the last steps and their best ones, and those in writing
_HEADER_BYTES = 500  # of a block and its state in the header of a file


def folder_lines(
    blocks: int,
    parameters_bytes: int,
    state_bytes: int,
    data_bytes: int,
    results_bytes: int,
    largest_result: int | None = None,
) -> tuple[PlanLine, ...]:
    """Return what a run folder holds at most of these, on disk.

    A checkpoint is written beside the two that it will replace one of, and may hold parameters and
    state; the best parameters lie in files of their own. A file of the results is written beside
    the one that an interrupted run left.

    Args:
      blocks: how many are trained.
      parameters_bytes: of the trained blocks as they are held.
      state_bytes: of the optimizer.
      data_bytes: what is kept of the data.
      results_bytes: what the run leaves, once.
      largest_result: the largest file of it; None: all of it is one.
    """
    files = _STEP_FILES + _BEST_FILES
    checkpoints = files * (parameters_bytes + _HEADER_BYTES * blocks) + _STEP_FILES * state_bytes
    results = results_bytes + (results_bytes if largest_result is None else largest_result)
    lines = (("checkpoints", checkpoints), ("data", data_bytes), ("results", results))
    return tuple(PlanLine(name, int(count)) for name, count in lines if count)


def state_line(
    transform: Transform,
    shapes: Mapping[str, tuple[int, ...]],
    copies: int,
    held: Callable[[Mapping[str, int]], int] | None = None,
) -> PlanLine:
    """Return the line of the optimizer's state, by its own `init`, and of copies of the blocks.

    Args:
      held: makes of the bytes of every block's state those that exist at once; None: all do.
      shapes: of the trained blocks, by name.
      copies: of every block in float32 beside the weights: gradients, updates, perturbations.
    """
    known: dict[tuple[tuple[int, ...], str], tuple[int, Transform]] = {}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        rule = transform.rule(name) if isinstance(transform, ByBlock) else transform
        # a rule that is the same but for the name of its block has a state of the same size; it is
        # kept, so that no other object can get its address
        key = (shape, repr(rule).replace(repr(name), ""))
        if key not in known:
            known[key] = _state_bytes(rule, shape), rule
        sizes[name] = known[key][0]
    total = sum(sizes.values()) if held is None else held(sizes)
    total += copies * 4 * sum(map(math.prod, shapes.values()))
    return PlanLine("optimizer state and copies", total)


def _state_bytes(rule: Transform, shape: tuple[int, ...]) -> int:
    """Return what a rule holds of a block, by its own `init`.

    That of a large block is not asked for: three smaller ones, a step of the longest side apart,
    say how the state grows with it, and are believed where they are on one line. All lengths leave
    the same rest, so whole groups of numbers are counted as they are.
    """
    long = max(range(len(shape)), key=lambda axis: shape[axis], default=0)
    if math.prod(shape) > _LARGE_BLOCK:
        others = [side for axis, side in enumerate(shape) if axis != long]
        least = max(others, default=0) + 1
        first = least + (shape[long] - least) % _STEP
        lengths = [first, first + _STEP, first + 2 * _STEP]
        few, some, more = (
            _held_bytes(rule, (*shape[:long], length, *shape[long + 1 :])) for length in lengths
        )
        if lengths[-1] < shape[long] and more - some == some - few:
            return few + (some - few) * ((shape[long] - first) // _STEP)
    return _held_bytes(rule, shape)


def _held_bytes(rule: Transform, shape: tuple[int, ...]) -> int:
    """Return the bytes of the zeros that a rule makes for a block."""
    block = np.broadcast_to(np.float32(0), shape)  # four bytes, whatever its size
    return sum(part.nbytes for part in rule.init(block).values())
