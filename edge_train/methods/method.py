"""What `--method` names: a record that says what it needs, what it reads and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from edge_train.recipe import Key, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_train.estimators.discrete import Propose
    from edge_train.protocols import Estimator, Stage, Transform

# What a method needs of an engine, and what an engine offers to a task.
FORWARD = "forward"  # losses at points
GRADIENT = "gradient"  # of the mean loss, block by block
LARGE = "large"  # blocks large enough that moments in few bits save something
MATRICES = "matrices"  # large blocks that a rule may project
ADAPTERS = "adapters"  # low-rank matrices beside frozen ones
BLOCKS = "blocks"  # stages that run and differentiate alone
TOKENS = "tokens"  # losses with other token ids of a prompt
# What a batch selection needs of them.
CANDIDATES = "candidates"  # more samples drawn for a step than are trained
LAST_LAYER = "last layer"  # what enters it and the errors at its outputs, sample by sample


class Passes(NamedTuple):
    """Passes of one sample through the model in a step."""

    forwards: int
    backwards: int = 0

    @property
    def words(self) -> str:
        """For people: `5 forward`, `2 forward and back`."""
        return f"{self.forwards} forward" + (" and back" if self.backwards else "")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run hands to a method that is built for it.

    Attributes:
      epsilon: relative radius, for methods that perturb.
      scale: root mean square of each block at the start, for methods that perturb.
      update: the task's own way to use an exact gradient; None: Adam.
      micro_batch: samples that the estimator differentiates at once; None: all, or as the runtime
        divides them.
      stages: of a network that is trained one at a time.
      classes: that labels name.
      pictures: whether stages are convolutions, whose outputs vary together.
      folder: of the run, for what a method keeps there.
      count: training samples.
      inputs: returns the inputs of samples, by their numbers.
      directions: by block, matrices (k, d) whose rows span what zo draws from; none: isotropic.
      span_steps: how many steps, from the first on, draw from them; None: all.
      propose: returns tokens to try at a place of a prompt; see `estimators.discrete.Propose`.
      is_head: whether a block of this name is of the output layer; of a tied one the table of
        tokens is. None: there is no such layer, or nobody knows.
    """

    epsilon: float = 0.0
    scale: Mapping[str, float] = field(default_factory=dict)
    update: Transform | None = None
    micro_batch: int | None = None
    stages: Sequence[Stage] = ()
    classes: int = 0
    pictures: bool = False
    folder: Path | None = None
    count: int = 0
    inputs: Callable[..., Any] | None = None
    is_head: Callable[[str], bool] | None = None
    propose: Propose | None = None
    directions: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    span_steps: int | None = None


Build: TypeAlias = "Callable[[Recipe, Parts], tuple[Estimator[Any], Transform]]"


@dataclass(frozen=True, kw_only=True)
class Method:
    """An estimator with its update rule.

    Attributes:
      name: what `--method` says.
      says: a line for people.
      needs: what it asks of an engine.
      build: makes the estimator and the transform chain from a recipe with its defaults filled in.
      passes: of a step of that recipe.
      reads: keys of recipes that not every method reads.
      keys: keys that it declares itself; their values are in `Recipe.options`.
      defaults: values of keys that are not set, over those of the task for all methods and under
        those of the task for this one.
      presets: settings of a paper that are built in another way; they count as this method's.
      perturbs: it compares losses at a radius, which a check of slopes picks.
      radius: the radius that a recipe names; None: the check picks it.
      best_margin: share of its improvement by which a later evaluation of a run of a recipe may
        miss the best one and take its place; 0: the lowest is the best.
      projects: it reads a projection of a gradient, so those of parts of a batch are added up.
      row_sums: numbers of each row that are added up beside that projection.
      extra_blocks: what it trains beside the blocks of the network, by name.
      keeps_length: why a run of a recipe cannot be made longer; None: it can.
    """

    name: str
    says: str
    needs: frozenset[str]
    build: Build
    passes: Callable[[Recipe], Passes]
    reads: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Build] = field(default_factory=dict)
    perturbs: bool = False
    radius: Callable[[Recipe], float | None] = lambda recipe: None
    best_margin: Callable[[Recipe], float] = lambda recipe: 0.0
    projects: bool = False
    row_sums: int = 0
    extra_blocks: Callable[[Recipe, Parts], Mapping[str, Any]] | None = None
    keeps_length: Callable[[Recipe], str | None] = lambda recipe: None

    def builder(self, preset: str) -> Build:
        """Return what builds it with a preset.

        Raises:
          KeyError: it has no such preset, which `Task.resolve` has refused before.
        """
        return self.build if preset == "default" else self.presets[preset]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An update rule of exact gradients; it is a method of the same name.

    Attributes:
      build: makes the chain from a recipe and the links that follow for every block (weight decay,
        rate).
      head: makes in the same way that of the output layer, unless the recipe has `project_head`;
        None: it is like any other matrix.
      reads, keys, defaults, projects, row_sums: as of a `Method`.
    """

    name: str
    says: str
    build: Callable[[Recipe, tuple[Transform, ...]], Transform]
    head: Callable[[Recipe, tuple[Transform, ...]], Transform] | None = None
    reads: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    projects: bool = False
    row_sums: int = 0
    needs: frozenset[str] = frozenset({GRADIENT, MATRICES})
