"""What `--batch-selection` and `--block-schedule` name: what of a step is trained, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_train.protocols import BatchSelection, BlockSchedule
    from edge_train.recipe import Key, Recipe


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which samples of a larger batch are trained.

    Attributes:
      name: what `--batch-selection` says.
      says: a line for people.
      build: makes it from a recipe with its defaults filled in.
      keys: keys that it declares itself; their values are in `Recipe.options`.
      defaults: values of keys of its own that are not set.
    """

    name: str
    says: str
    build: Callable[[Recipe], BatchSelection]
    keys: tuple[Key, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which blocks are trained in a step; the others rest.

    Attributes:
      name: what `--block-schedule` says.
      says, build, keys, defaults: as of a `Selection`.
    """

    name: str
    says: str
    build: Callable[[Recipe], BlockSchedule]
    keys: tuple[Key, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


SELECTIONS: tuple[Selection, ...] = ()
SCHEDULES: tuple[Schedule, ...] = ()
