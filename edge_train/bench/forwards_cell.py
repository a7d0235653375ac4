"""One curve of `bench forwards`, in a process of its own so that its peak is its own.

`python -m edge_train.bench.forwards_cell CELL OUT` trains as the JSON file CELL says and writes
the token at every mark to OUT, with the forwards, processor seconds and bytes that it took.
"""

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_train.arrays.types import Array
from edge_train.bench.likeness import CLASS_WORD, WINDOW
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import NonFinite
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.memory.measure import measure
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

# a forward, its recomputation, and a backward pass, which costs two
EXACT_STEP_FORWARDS = 4


@dataclass(frozen=True)
class Cell:
    """A run whose curve is measured.

    Args:
      options: of the recipe, beside what all runs have in common.
      forwards: after which it is stopped, if it does not end before.
    """

    model: str
    photos: str
    seed: int
    options: dict[str, Any]
    forwards: int


@dataclass(frozen=True)
class Mark:
    """A point of a curve: what training took so far, and the loss of the fixed batch there."""

    forwards: int
    seconds: float
    peak_bytes: int
    loss: float


def recipe_of(cell: Cell) -> PersonalizeRecipe:
    """Return the recipe of a cell; its own options go before what is common."""
    common: dict[str, Any] = {
        "model": cell.model,
        "photos": cell.photos,
        "class_word": CLASS_WORD,
        "window": WINDOW,
        "flips": False,
        "threads": 1,
        "seed": cell.seed,
    }
    return PersonalizeRecipe(**{**common, **cell.options})


def marks_until(forwards: int) -> list[int]:
    """Return where curves are measured: at equal ratios, four to a factor of ten.

    >>> marks_until(1000)
    [0, 100, 178, 316, 562, 1000]
    """
    return [0, *(m for i in range(8, 40) if (m := int(10 ** (i / 4) + 0.5)) <= forwards)]


def cost(steps: TokenSteps) -> int:
    """Return the forwards that steps took, an exact one counted as `EXACT_STEP_FORWARDS`."""
    return steps.forwards + (EXACT_STEP_FORWARDS - 1) * steps.backwards


def train(cell: Cell, out: Path) -> None:
    """Train a cell and write its tokens; a run that diverges ends there, and its curve with it."""
    steps = TokenSteps.open(recipe_of(cell))
    waiting = marks_until(cell.forwards)
    tokens: dict[str, Array] = {}
    marks: list[Mark] = []
    start, spent = time.process_time(), 0.0

    def note() -> None:
        peak = measure().peak_bytes
        point = steps.point
        marks.append(Mark(cost(steps), spent, peak, steps.held_loss(point)))
        tokens.update({f"{len(marks) - 1}/{name}": block for name, block in point.items()})

    for number in itertools.count():
        last = number == steps.length(number) or cost(steps) >= cell.forwards
        if last or (waiting and cost(steps) >= waiting[0]):
            spent += time.process_time() - start
            note()
            waiting = [mark for mark in waiting if mark > cost(steps)]
            start = time.process_time()
        if last:
            break
        try:
            steps.take(number)
        except NonFinite:
            break
    steps.runtime.close()
    words = json.dumps([asdict(mark) for mark in marks])
    save_tensors(out, tokens, {"marks": words})


def read(path: Path) -> tuple[list[Mark], list[dict[str, Array]]]:
    """Return the marks of a cell and the token at each."""
    tensors, metadata = load_tensors(path)
    marks = [Mark(**words) for words in json.loads(metadata["marks"])]
    points: list[dict[str, Array]] = [{} for _ in marks]
    for name, block in tensors.items():
        number, _, own = name.partition("/")
        points[int(number)][own] = block
    return marks, points


if __name__ == "__main__":
    words = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    train(Cell(**words), Path(sys.argv[2]))
