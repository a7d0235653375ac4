"""What a run holds and takes, what it gives up for memory, and every other way to run its model.

Everything is counted from headers and shapes. Nothing is loaded, and no engine is imported: what
libraries hold was measured once and stands in their records. A rehearsal, which loads and runs,
is made where it is asked for.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from edge_train.errors import InputError, ModelError
from edge_train.memory.footprint import Footprint, PlanLine
from edge_train.memory.machine import Limit, memory_limit
from edge_train.memory.plan import Plan, estimate, is_too_large, needs
from edge_train.methods import methods
from edge_train.recipe import Recipe
from edge_train.run.disk import folder_needs
from edge_train.run.pace import Prediction, in_words, predict
from edge_train.run.rehearsal import rehearse_apart
from edge_train.run.savings import next_smaller
from edge_train.run.timing import check_time
from edge_train.runtimes.engine import engines
from edge_train.tasks import open_job, task_of
from edge_train.tasks.job import Job, LooksAtItsData
from edge_train.units import advised_bytes, format_bytes, format_seconds

_LEARNS = ("method", "quant")  # what another engine has to have as well, to be the same run


@dataclass(frozen=True)
class Choice:
    """One way to run, as recipe keys that differ from what was asked, and its plan.

    Attributes:
      changes: keys and values.
      recipe: with them, and with every default filled in.
      predicted: how long it takes; None where nobody counted.
      model_bytes: of the weights in their files.
      opened: why the network had to be opened to count it; empty where files tell.
    """

    changes: Mapping[str, Any]
    recipe: Recipe
    plan: Plan
    predicted: Prediction | None = None
    model_bytes: int = 0
    opened: str = ""

    def record(self, cap_bytes: int | None) -> dict[str, Any]:
        """Return plain values."""
        recipe = self.recipe
        return {
            **{name: getattr(recipe, name) for name in (*_keys(recipe), "runtime")},
            "peak_bytes": self.plan.peak_bytes,
            "seconds_per_step": self.plan.seconds_per_step,
            "about_seconds": self.predicted.step if self.predicted else None,
            "predicted_seconds": self.predicted.seconds if self.predicted else None,
            "passes_per_step": methods.get(recipe.method).passes(recipe).words,
            "quality": task_of(recipe).known_quality(recipe),
            "source": self.plan.source,
            "fits": cap_bytes is None or self.plan.peak_bytes <= cap_bytes,
        }

    @property
    def given_up(self) -> int:
        """How much it gives up: less than any one saving that comes later in the task's list."""
        keys = _keys(self.recipe)
        return sum(2**index for index, name in enumerate(keys) if name in self.changes)

    @property
    def pace(self) -> str:
        """Seconds of a step as words: measured in this way, in a like one, or from shapes."""
        if self.plan.source == "rehearsal":
            return f"{self.plan.seconds_per_step:.3g}"
        if self.predicted is None:
            return "not known"
        return f"about {float(f'{self.predicted.step:.2g}'):g}"

    def takes(self, cap_bytes: int | None) -> bool:
        """Return whether a run starts like this, and gives up nothing more before it."""
        return cap_bytes is None or not is_too_large(self.plan, cap_bytes, self.model_bytes)

    @property
    def flags(self) -> str:
        """What to type for it beside what was typed."""
        flags = {saving.key: saving.flag for saving in task_of(self.recipe).savings}
        words = [
            flags.get(name) or f"--{name.replace('_', '-')} {value}"
            for name, value in self.changes.items()
        ]
        return " ".join(words)


@dataclass(frozen=True)
class Survey:
    """The plan that was asked for, and other ways to run.

    Attributes:
      asked: as it was typed.
      choices: that one, then what a run gives up one thing after the other, or every way.
      taken: the way in which a run starts by itself: the first of its ladder that has room; None
        where none has.
      container: what the container has in which this was asked; None outside of one.
      name: of the run's folder, where none was named.
      elsewhere: the same on an engine that loads no code, where this one has no room; None where
        that has none either.
      notes: what a run says of its words and data before it trains, a line each.
    """

    asked: Choice
    choices: tuple[Choice, ...]
    cap_bytes: int | None
    container: Limit | None = None
    name: str = ""
    taken: Choice | None = None
    elsewhere: Choice | None = None
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether a run starts, as it was asked for or smaller."""
        return self.taken is not None

    @property
    def shown(self) -> Choice:
        """The way whose lines matter: the one that a run takes, else the one that was asked for."""
        return self.taken or self.asked

    @property
    def steps_in_time(self) -> int | None:
        """How many steps fit into the time that was named; None: no time, or nobody counted."""
        recipe, predicted = self.shown.recipe, self.shown.predicted
        if recipe.time_seconds is None or predicted is None:
            return None
        return predicted.steps_within(recipe.time_seconds)

    @property
    def too_short(self) -> str:
        """Why the time that was named is too short for a single step; empty where it is not."""
        predicted, seconds = self.shown.predicted, self.shown.recipe.time_seconds
        if self.steps_in_time != 0 or predicted is None or seconds is None:
            return ""
        around = predicted.start + predicted.after + 2 * predicted.evaluation
        return (
            f"no step fits into {format_seconds(seconds)} (--time): start and end take "
            f"{in_words(around)}, a step about {predicted.step:.2g} s. Try --time "
            f"{math.ceil(2 * (around + predicted.step))}s."
        )

    @property
    def folder(self) -> tuple[PlanLine, ...]:
        """What the run folder of the shown plan will need on its disk at most."""
        return folder_needs(self.shown.recipe, self.shown.plan)

    def refusal(self) -> str:
        """Return what is needed, and the change that gives up least and would fit."""
        assert self.cap_bytes is not None
        sentence = needs(self.asked.plan, self.cap_bytes)
        fitting = [c for c in self.choices if c.plan.peak_bytes <= self.cap_bytes]
        least = min(self.choices, key=lambda choice: choice.plan.peak_bytes)
        if fitting:
            best = min(fitting, key=lambda choice: (choice.given_up, -choice.plan.peak_bytes))
            saved = self.asked.plan.peak_bytes - best.plan.peak_bytes
            advice = f"Try {best.flags} (saves {format_bytes(saved)})"
        elif self.elsewhere is not None:
            cap = _cap_for(least)
            advice = f"Try {by_engine(self.elsewhere)}, or on this engine {cap}"
        else:
            advice = f"Nothing fits; a cap that does is {_cap_for(least)}"
            box = self.container
            if box is not None and least.plan.peak_bytes > box.room_bytes:
                advised = advised_bytes(least.plan.peak_bytes)
                whole = _round_up(advised * box.bytes // box.room_bytes)
                advice = (
                    f"Nothing fits: {box.words()}; start it with {whole} of memory or more, and "
                    f"{_cap_for(least)}"
                )
        return f"{sentence} {advice}; `edge-train plan --all` lists every line."

    def record(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "cap_bytes": self.cap_bytes,
            "container_bytes": self.container.bytes if self.container else None,
            "fits": self.fits,
            "gives_up": dict(self.taken.changes) if self.taken else {},
            "plan": self.shown.plan.record(),
            "predicted_seconds": self.shown.predicted.seconds if self.shown.predicted else None,
            "time_seconds": self.shown.recipe.time_seconds,
            "steps_in_time": self.steps_in_time,
            "folder_bytes": sum(line.bytes for line in self.folder),
            "choices": [choice.record(self.cap_bytes) for choice in self.choices],
            "refusal": None if self.fits else self.refusal(),
            "notes": list(self.notes),
        }

    def json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(self.record(), indent=2)


def survey(recipe: Recipe, *, everything: bool = False, rehearse: bool = False) -> Survey:
    """Return what a recipe needs, what a run of it would give up, and what that saves.

    The ladder is that of a run (`savings.py`): it gives up one thing after the other until the
    rest has room. Nothing is trained and nothing is written.

    Args:
      everything: list every way to run this model, not only that ladder.
      rehearse: run the recipe once in small, and measure it, where a container has room for that.

    Raises:
      InputError, ModelError: the recipe cannot be run at all, or not on these data as far as a
        look at them tells.
    """
    job, limit = open_job(recipe), memory_limit()
    check_time(recipe, job)
    if isinstance(job, LooksAtItsData):
        job.look_at_data()
    asked = _choice({}, job)
    if rehearse and _can_rehearse(asked.plan, limit):
        asked = replace(asked, plan=rehearse_apart(recipe))
    cap_bytes = recipe.cap_bytes
    own = [asked, *_rungs(asked, recipe, recipe)]
    taken = next((choice for choice in own if choice.takes(cap_bytes)), None)
    choices, elsewhere = own, None
    if taken is None:
        elsewhere = on_another_engine(recipe, job.recipe)
    if everything:
        ways = filter(None, (_way(recipe, changes) for changes in _ways(job) if changes))
        choices = [asked, *ways]
    elif taken is None:  # what a run does not give up by itself may be typed
        further = [*own, *_rungs(own[-1], recipe, _left_to_auto(recipe))]
        last = next((choice for choice in further if _fits(choice, cap_bytes)), None)
        choices = [*further, *([_pruned(last, recipe)] if last else [])]
    notes = tuple(job.notes)
    return Survey(asked, tuple(choices), cap_bytes, limit, job.name, taken, elsewhere, notes)


def on_another_engine(recipe: Recipe, found: Recipe) -> Choice | None:
    """Return how a run computes the same within its cap on an engine that loads no code.

    How long it takes is not counted, since a worker at its cap asks, too.

    Args:
      recipe: as it was asked for; with a cap.
      found: the same with its defaults filled in, on an engine that has no room.
    """
    for name in task_of(recipe).all_uses():
        if name == found.runtime or engines.get(name).loads:
            continue
        for way in _plans_on(name, recipe):
            same = all(getattr(way.recipe, key) == getattr(found, key) for key in _LEARNS)
            if same and advised_bytes(way.plan.peak_bytes) <= (recipe.cap_bytes or 0):
                return way
    return None


def _plans_on(engine: str, recipe: Recipe) -> Iterator[Choice]:
    """Yield the ways that a run on an engine goes by itself; none where it cannot."""
    changes: dict[str, Any] = {"runtime": engine}
    while True:
        try:
            job = open_job(replace(recipe, **changes))
        except (InputError, ModelError):
            return
        yield (way := _planned(changes, job, job.footprint()))
        more = next_smaller(way.recipe, recipe)
        if not more:
            return
        changes = {**changes, **more}


def by_engine(choice: Choice) -> str:
    """Return what to type for a way on another engine, and what it needs.

    What else it gives up, a run gives up by itself.
    """
    needed = format_bytes(choice.plan.peak_bytes)
    return f"--runtime {choice.recipe.runtime} (plan needs {needed})"


def _choice(changes: Mapping[str, Any], job: Job) -> Choice:
    """Return a way to run with what its job counts, and how long it takes."""
    held = job.footprint()
    return replace(_planned(changes, job, held), predicted=predict(job.recipe, held))


def _planned(changes: Mapping[str, Any], job: Job, held: Footprint) -> Choice:
    """Return a way to run with what its job counts."""
    plan = estimate(held, held.libraries_bytes)
    return Choice(changes, job.recipe, plan, None, held.model_bytes, held.opened)


def _way(recipe: Recipe, changes: Mapping[str, Any]) -> Choice | None:
    """Return a way to run, None where this model cannot take it."""
    try:
        return _choice(changes, open_job(replace(recipe, **changes)))
    except InputError:
        return None


def _rungs(start: Choice, recipe: Recipe, asked: Recipe) -> Iterator[Choice]:
    """Yield what a run gives up after a way to run, one thing more each time.

    Args:
      asked: what it leaves to `auto` may be given up, too.
    """
    now: Choice | None = start
    while now is not None and (more := next_smaller(now.recipe, asked)):
        now = _way(recipe, {**now.changes, **more})
        if now is not None:
            yield now


def _left_to_auto(recipe: Recipe) -> Recipe:
    """Return a recipe that leaves to `auto` what a run may choose before it begins."""
    keys: dict[str, Any] = {s.key: "auto" for s in task_of(recipe).savings if s.only_auto}
    return replace(recipe, **keys)


def _fits(choice: Choice, cap_bytes: int | None) -> bool:
    return cap_bytes is None or choice.plan.peak_bytes <= cap_bytes


def _pruned(choice: Choice, recipe: Recipe) -> Choice:
    """Return a way that fits without what it gives up in vain, the dearest of that first."""
    for name in reversed(list(choice.changes)[:-1]):
        fewer = {key: value for key, value in choice.changes.items() if key != name}
        found = _way(recipe, fewer)
        if found is not None and _fits(found, recipe.cap_bytes):
            choice = found
    return choice


def _cap_for(choice: Choice) -> str:
    """Return what to type for a choice that fits nothing that was named."""
    return f"--mem {_round_up(advised_bytes(choice.plan.peak_bytes))} {choice.flags}".rstrip()


def _round_up(count: int) -> str:
    """Return a size to type that is a little more than `count`."""
    return f"{-(-count // 10_000_000) * 10}MB"


def _can_rehearse(guess: Plan, limit: Limit | None) -> bool:
    """Return whether a container can hold a rehearsal, which has no wall, beside this process."""
    if limit is None:
        return True
    left = limit.left_bytes()
    return left is None or guess.peak_bytes <= left


def _keys(recipe: Recipe) -> list[str]:
    """Return what may be chosen of a recipe, the cheapest to give up first."""
    return list(dict.fromkeys(saving.key for saving in task_of(recipe).savings))


def _ways(job: Job) -> Iterator[dict[str, Any]]:
    """Yield recipe changes: none first, then the ones that give up least."""
    recipe = job.recipe
    axes: dict[str, list[Any]] = {}
    # what costs most varies slowest, and what was asked for comes first, whatever it is
    for saving in reversed(task_of(recipe).savings):
        asked = getattr(recipe, saving.key)
        values = axes.setdefault(saving.key, [asked])
        if saving.when(recipe):
            values += [value for value, _ in saving.values if value not in values]
    if axes.get("method", [""])[0] == "adamw":  # the same numbers
        axes["method"].remove("backprop")
    asked_values = {name: values[0] for name, values in axes.items()}
    yield {}
    for combination in product(*axes.values()):
        wanted = dict(zip(axes, combination, strict=True))
        changes = {name: value for name, value in wanted.items() if value != asked_values[name]}
        if changes:
            yield changes
