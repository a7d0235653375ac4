"""A prompt of words that is searched for two frozen models at once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.aligned_words import AlignedWords
from edge_train.memory.footprint import Footprint, PlanLine
from edge_train.methods import methods
from edge_train.methods.method import TOKENS
from edge_train.protocols import Estimator, Objective, Runtime, Transform
from edge_train.rng import Key
from edge_train.runtimes.prompted_pair import SECOND, PromptedPair
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.language_model.job import LanguageModelJob
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

SECOND_FOLDER = "second"  # of a run: the data and the prompt in the tokens of the second model


def job_of(recipe: LanguageModelRecipe) -> "LanguageModelJob | TwoModelsJob":
    """Return the job of a recipe: of one model, or of a prompt for two."""
    return LanguageModelJob(recipe) if recipe.also_for is None else TwoModelsJob(recipe)


@dataclass(frozen=True)
class Both:
    """An `Objective`: the same chats in the tokens of two models; see `PromptedPair`."""

    first: Any
    second: Any

    def batch(self, key: Key) -> Batch:
        """Return the chats of a step for both."""
        return _beside(self.first.batch(key), self.second.batch(key))

    def evaluation(self) -> Batch:
        """Return the chats that choose the best prompt."""
        return _beside(self.first.evaluation(), self.second.evaluation())

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, samples)."""
        return runtime.forward(batch, points)


class TwoModelsJob:
    """A `Job` of two `LanguageModelJob`s, which share nothing but the words.

    Raises:
      InputError, ModelError: a word, file or model that cannot be used.
    """

    def __init__(self, recipe: LanguageModelRecipe) -> None:
        if TOKENS not in methods.get(recipe.method).needs:
            raise InputError(
                f"also_for is of --method discrete, this run says {recipe.method!r}; leave it out."
            )
        if recipe.prompt_start is None:
            raise InputError(
                "also_for needs --prompt-start: words that both models read as the same tokens, "
                "such as --prompt-start 'Is the review positive or negative ?'"
            )
        assert recipe.also_for is not None
        path = Path(recipe.also_for).expanduser()
        name = str(path.resolve()) if path.exists() else recipe.also_for
        self._first = LanguageModelJob(replace(recipe, also_for=None))
        self._second = LanguageModelJob(replace(recipe, model=name, also_for=None))
        self.recipe = replace(self._first.recipe, also_for=name)
        second = (f"second model: {note}" for note in self._second.notes)
        self.notes: tuple[str, ...] = (*self._first.notes, *second)
        self.name = self._first.name

    @property
    def model_sha256(self) -> str:
        """The hash of both models."""
        both = self._first.model_sha256 + self._second.model_sha256
        return hashlib.sha256(both.encode()).hexdigest()

    def footprint(self) -> Footprint:
        one, two = self._first.footprint(), self._second.footprint()
        known = {phase: (*lines, *_of_second(two, phase)) for phase, lines in one.known.items()}
        return replace(
            one,
            libraries=tuple(dict.fromkeys((*one.libraries, *two.libraries))),
            model_bytes=one.model_bytes + two.model_bytes,
            known=known,
            workspace={p: max(b, two.workspace.get(p, 0)) for p, b in one.workspace.items()},
            job_bytes=one.job_bytes + two.job_bytes,
            first_use_bytes=max(one.first_use_bytes, two.first_use_bytes),
            operations=one.operations + two.operations,
            products=one.products + two.products,
            folder=(*one.folder, *two.folder),
        )

    def judge_less(self) -> None:
        """Judge as few chats as go through the engines together."""
        self._first.judge_less()
        self._second.judge_less()

    def load(self) -> None:
        self._first.load()
        self._second.load()

    def prepare(self, folder: Path, say: Say) -> None:
        self._first.prepare(folder, say)
        self._second.prepare(_inside(folder), say)
        self._check()

    def restore(self, folder: Path, say: Say) -> None:
        self._first.restore(folder, say)
        self._second.restore(_inside(folder), say)
        self._check()

    def _check(self) -> None:
        """Refuse data that the two models read as different chats, or a start as other words.

        Raises:
          InputError: as described.
        """
        tasks: list[Any] = [self._first.task(), self._second.task()]
        sizes = [len(one.sizes) for one in tasks]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{self.recipe.data}: the first model reads {sizes[0]} chats, the second "
                f"{sizes[1]}, since some are too long for one of them; use a longer --length."
            )
        start = self._first.prompt_start
        if self._words.other(start) != self._second.prompt_start:
            raise InputError(
                f"--prompt-start {self.recipe.prompt_start!r} is not the same words, a token "
                "each, in both models; use short common words, with a space before a mark."
            )

    @property
    def _words(self) -> AlignedWords:
        if not hasattr(self, "_aligned"):
            self._aligned = AlignedWords(self._first.prompt_words, self._second.prompt_words)
        return self._aligned

    def data_sha256(self) -> str:
        both = self._first.data_sha256() + self._second.data_sha256()
        return hashlib.sha256(both.encode()).hexdigest()

    def open_runtime(self) -> PromptedPair:
        def other(ids: Sequence[int]) -> Sequence[int]:
            found = self._words.other(ids)
            if found is None:
                raise RunFolderError(
                    f"the prompt {ids} is not the same words in both models; the run folder is "
                    "damaged, or one of its models is another one."
                )
            return found

        return PromptedPair(self._first.open_runtime(), self._second.open_runtime(), other)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on; the runtime was told by itself."""
        self._first.use_threads(count)
        self._second.use_threads(count)
        self.recipe = replace(self.recipe, threads=count)

    def task(self) -> Objective:
        return Both(self._first.task(), self._second.task())

    def smallest_radius(self) -> float:
        return self._first.smallest_radius()

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self._first.use_fits(fits)
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        estimator, transform = self._first.method(epsilon, scale)
        search: Any = estimator
        return replace(search, propose=self._propose), transform

    def _propose(self, key: Key, ids: Sequence[int], position: int, count: int) -> Any:
        """Return words of both; which those are is known once the data are read."""
        return self._words.propose(key, ids, position, count)

    def facts(self, folder: Path) -> Mapping[str, Any]:
        return {**self._first.facts(folder), "also_for": self.recipe.also_for}

    def preview(self, folder: Path, step: int, runtime: Any) -> str | None:
        return self._first.preview(folder, step, runtime.first)

    def finish(self, folder: Path, runtime: Any, best: Point, steps: int, whole: bool) -> Outcome:
        two = self._second.finish(
            _inside(folder), runtime.second, runtime.beside(best), steps, whole
        )
        one = self._first.finish(folder, runtime.first, best, steps, whole)
        outputs = {f"second_{n}": f"{SECOND_FOLDER}/{file}" for n, file in two.outputs.items()}
        metrics = {f"second_{name}": value for name, value in two.metrics.items()}
        lines = filter(None, (one.line, two.line and f"second model: {two.line}"))
        return Outcome(
            {**one.metrics, **metrics}, {**one.outputs, **outputs}, "\n".join(lines) or None
        )


def _beside(one: Batch, two: Batch) -> dict[str, Any]:
    return {**one, **{f"{SECOND}{name}": values for name, values in two.items()}}


def _of_second(two: Footprint, phase: str) -> list[PlanLine]:
    return [PlanLine(f"{one.name}, second model", one.bytes) for one in two.known[phase]]


def _inside(folder: Path) -> Path:
    """Return the folder of the second model, which is made where it is not there.

    Raises:
      RunFolderError: it cannot be made.
    """
    place = folder / SECOND_FOLDER
    try:
        place.mkdir(exist_ok=True)
        (place / "samples").mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{place}: cannot be made ({error}).") from error
    return place
