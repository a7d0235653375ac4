"""What `--batch-selection` and `--block-schedule` name: what of a step is trained, and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from edge_train.protocols import BatchSelection, BlockSchedule
    from edge_train.recipe import Key, Recipe


class Held(NamedTuple):
    """Bytes of a batch selection: all that it holds, and what of it is in every checkpoint."""

    all: int = 0
    kept: int = 0


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which samples of a larger batch are trained.

    Attributes:
      name: what `--batch-selection` says.
      says: a line for people.
      build: makes it from a recipe with its defaults filled in.
      needs: what it asks of an engine.
      drawn: samples that a task draws for a step of a recipe; it trains `samples` of them.
      passes: samples of them that it passes through the model in a step.
      held: the bytes that it holds, by a recipe, the outputs and inputs of the last layer, and
        the rows of each sample that it computes.
      keys: keys that it declares itself; their values are in `Recipe.options`.
      defaults: values of keys of its own that are not set.
    """

    name: str
    says: str
    build: Callable[[Recipe], BatchSelection]
    needs: frozenset[str] = frozenset()
    drawn: Callable[[Recipe], int] = lambda recipe: recipe.samples or 1
    passes: Callable[[Recipe], int] = lambda recipe: 0
    held: Callable[[Recipe, tuple[int, int], int], Held] = lambda recipe, shape, rows: Held()
    keys: tuple[Key, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which blocks are trained in a step; the others rest.

    Attributes:
      name: what `--block-schedule` says.
      says, keys, defaults: as of a `Selection`.
      build: makes it from a recipe, the names of blocks and what was measured.
      measure: what it wants to know of a model before the first step, a number for each of some
        names, and the forward passes of one sample that this took; the journal keeps both. Gets
        recipe, runtime and task.
      warns: a sentence on what a built one will not do in a run of a recipe; None: it does all.
      held: the most bytes of optimizer state that exist at once, by a recipe and the bytes of
        every block's; None: those of all.
    """

    name: str
    says: str
    build: Callable[[Recipe, Collection[str], Mapping[str, float]], BlockSchedule]
    measure: Callable[[Recipe, Any, Any], tuple[Mapping[str, float], int]] | None = None
    warns: Callable[[Recipe, Any], str | None] = lambda recipe, built: None
    held: Callable[[Recipe, Mapping[str, int]], int] | None = None
    keys: tuple[Key, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
