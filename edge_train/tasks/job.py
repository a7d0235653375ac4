"""What a task brings to a run: its data, model, method and what it leaves behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edge_train.arrays.types import Point
from edge_train.memory.footprint import Footprint
from edge_train.memory.reactions import Pages
from edge_train.protocols import Estimator, Objective, Runtime, Transform
from edge_train.recipe import Recipe

Say = Callable[[str], None]  # tells the user one line


class OpenRuntime(Runtime, Protocol):
    """A runtime with its model loaded; it says where it runs, and lets go when told."""

    device: str
    dtype: str
    batch_limit: int | None  # most samples in one call; None: as many as are worth it

    @property
    def pages(self) -> Pages | None:
        """Weights that are read in place from their file; None where there are none."""
        ...

    def device_bytes(self) -> int:
        """Return the peak of a discrete device's memory; 0 where there is none."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class Card(Protocol):
    """What a runtime holds on a card: `runtimes/torch/card_memory.py`."""

    integrated: bool  # it computes in the memory of the machine

    def shared_bytes(self) -> int:
        """Return the most held of the machine's memory by an integrated card; 0 of another."""
        ...


@runtime_checkable
class HasCard(Protocol):
    """A runtime of an engine that knows cards; there need not be one."""

    card: Card


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: scores by name, files by kind, and the scores as a line for people.

    `missing` says what could not be made of a run that is whole without it.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)  # names inside the run folder
    line: str | None = None
    missing: str | None = None


class Job(Protocol):
    """A recipe whose every word was checked; it makes the parts of its run when asked.

    The order of calls. A new run: `load`, `prepare`, `open_runtime`, `task`, `data_sha256`,
    `facts`, `method`. A resumed one: `restore` in place of the first two, and no `facts`. Then
    `preview` as often as the recipe says, and `finish` once.
    """

    @property
    def recipe(self) -> Recipe:
        """The recipe with every default filled in."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notices: what the user should know before the run starts, a line each.

        What was cut, left out or set aside is said here and nowhere else: texts that lose their
        end, photos that are cropped, rows, files and examples that are not used. A run says each
        line once at its start, those that only `prepare` knows after it; the journal keeps them
        (`facts.notices`) and the report shows them.
        """
        ...

    @property
    def name(self) -> str:
        """What the folder of a run is called if the user names none."""
        ...

    @property
    def model_sha256(self) -> str:
        """The hash of the model that is trained; a run is resumed with the same one only."""
        ...

    def footprint(self) -> Footprint:
        """Return what a run will hold, without loading the model."""
        ...

    def load(self) -> None:
        """Read and check the user's data, before the run folder exists.

        Raises:
          InputError: it cannot be used.
        """
        ...

    def prepare(self, folder: Path, say: Say) -> None:
        """Turn the loaded data into what training reads; what is slow to make is kept in `folder`.

        Raises:
          InputError, ModelError, RunFolderError: it cannot be made or kept.
        """
        ...

    def restore(self, folder: Path, say: Say) -> None:
        """Do what `prepare` did, from what it kept in `folder`, or again where that is damaged."""
        ...

    def data_sha256(self) -> str:
        """Return the hash of what `prepare` or `restore` made: all that training reads of data."""
        ...

    def open_runtime(self) -> OpenRuntime:
        """Return the runtime with its trainable blocks at their start values."""
        ...

    def task(self) -> Objective:
        """Return where batches come from."""
        ...

    def smallest_radius(self) -> float:
        """Return the relative radius below which a forward-only method would measure rounding."""
        ...

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        """Return the estimator and the transform chain that the recipe names.

        Args:
          epsilon: relative radius; ignored by methods that do not perturb.
          scale: root mean square of each block at the start.
        """
        ...

    def facts(self, folder: Path) -> Mapping[str, Any]:
        """Return what the report says of the task and its data; pictures of it go into `folder`."""
        ...

    def preview(self, folder: Path, step: int, runtime: Any) -> str | None:
        """Show in `folder` what was learned in `step` steps; return a line for the journal.

        With step 0 it is asked before the first step, for a task that can only then show what it
        begins with.
        """
        ...

    def finish(self, folder: Path, runtime: Any, best: Point, steps: int, whole: bool) -> Outcome:
        """Save what was learned; of a whole run, score it and show it too.

        Args:
          best: the trainable blocks where the evaluation was lowest, after `steps` steps.
          whole: whether the run came to its end; an interrupted one is saved only.
        """
        ...


@runtime_checkable
class KnowsItsModel(Protocol):
    """A job whose model earlier code knew by another hash."""

    def is_model(self, sha256: str) -> bool:
        """Return whether a run that began with a model of this hash began with this one."""
        ...


@runtime_checkable
class KnowsItsRadius(Protocol):
    """A job that knows at which relative radius its forward-only method learns best."""

    def wanted_radius(self) -> float:
        """Return the radius that the check of slopes tries first."""
        ...


@runtime_checkable
class FitsATime(Protocol):
    """A job whose schedule can be fitted to the steps that a time leaves room for."""

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        """Take the `fits` of a recipe; `method` goes by them from the next call on."""
        ...


@runtime_checkable
class ReadsMoreOfItsModel(Protocol):
    """A job whose model has more than weights: a configuration and a tokenizer belong to a run."""

    def check_model(self, folder: Path, say: Say) -> None:
        """Refuse other such files than those that the run in `folder` began with.

        Called when a run is resumed, before any library is loaded: the answer takes no seconds.

        Raises:
          RunFolderError: the first of them, by its name.
        """
        ...


@runtime_checkable
class JudgesLess(Protocol):
    """A job that can hold what its run will hold with fewer passes, for a rehearsal."""

    def judge_less(self) -> None:
        """Judge no more samples than one call of the engine takes; before the data are loaded.

        Bytes are those of a call, however many there are; minutes are not: of a large model each
        pass takes some.
        """
        ...


@runtime_checkable
class LooksAtItsData(Protocol):
    """A job whose data are so few that a plan reads them, too."""

    def look_at_data(self) -> None:
        """Refuse what `load` would refuse; what a run says of the data is in `notes` from then on.

        Raises:
          InputError: the data cannot be used.
        """
        ...
