"""Every way to run a model: what each one holds and takes, and the cheapest one that fits."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from edge_train.errors import InputError
from edge_train.memory.footprint import PlanLine, has_room
from edge_train.memory.machine import Limit, memory_limit
from edge_train.memory.plan import LARGE_BYTES, Plan, estimate, load_libraries, needs
from edge_train.memory.wall import WALL_NONE
from edge_train.methods import methods
from edge_train.recipe import Recipe
from edge_train.run.disk import folder_needs, needs_in_words
from edge_train.run.pace import about_seconds
from edge_train.run.rehearsal import rehearse_apart
from edge_train.tasks import open_job, task_of
from edge_train.tasks.job import Job
from edge_train.units import advised_bytes, format_bytes

REHEARSED_SECONDS = 60.0  # after that the other choices are estimated from what was measured


@dataclass(frozen=True)
class Choice:
    """One way to run, as recipe keys that differ from what was asked, and its plan."""

    changes: Mapping[str, Any]
    recipe: Recipe
    plan: Plan
    about_seconds: float | None = None  # of a step, from what it multiplies

    def record(self, cap_bytes: int | None) -> dict[str, Any]:
        """Return plain values."""
        recipe = self.recipe
        return {
            **{name: getattr(recipe, name) for name in (*_keys(recipe), "runtime")},
            "peak_bytes": self.plan.peak_bytes,
            "seconds_per_step": self.plan.seconds_per_step,
            "about_seconds": self.about_seconds,
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
        seconds = self.plan.seconds_per_step or self.about_seconds
        return "not known" if seconds is None else f"about {float(f'{seconds:.2g}'):g}"

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
    """The plan that was asked for, and all choices, the asked one first.

    `container` is what the container has in which this was asked; None outside of one. `name` is
    that of the run's folder, where none was named.
    """

    asked: Choice
    choices: tuple[Choice, ...]
    cap_bytes: int | None
    container: Limit | None = None
    name: str = ""

    @property
    def fits(self) -> bool:
        """Whether the asked plan fits."""
        return self.cap_bytes is None or self.asked.plan.peak_bytes <= self.cap_bytes

    @property
    def folder(self) -> tuple[PlanLine, ...]:
        """What the run folder of the asked plan will need on its disk at most."""
        return folder_needs(self.asked.recipe, self.asked.plan)

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
        return f"{sentence} {advice}; `edge-train plan` lists every line."

    def record(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "cap_bytes": self.cap_bytes,
            "container_bytes": self.container.bytes if self.container else None,
            "fits": self.fits,
            "plan": self.asked.plan.record(),
            "folder_bytes": sum(line.bytes for line in self.folder),
            "choices": [choice.record(self.cap_bytes) for choice in self.choices],
            "refusal": None if self.fits else self.refusal(),
        }

    def text(self) -> str:
        """Return every line and every choice, for people."""
        rows = [self.asked.plan.text(), f"run folder, at most {needs_in_words(self.folder)}", ""]
        titled = [s for s in task_of(self.asked.recipe).savings if s.title]
        head = ["method", "runtime", "weights", *(saving.title for saving in titled), "bytes"]
        table = [[*head, "seconds a step", "passes", "quality, measured", "bytes by", ""]]
        for choice in self.choices:
            recipe, plan, found = choice.recipe, choice.plan, choice.record(self.cap_bytes)
            fits = "" if self.cap_bytes is None else "fits" if found["fits"] else "too large"
            table.append(
                [
                    *(recipe.method, recipe.runtime, recipe.quant),
                    *(_shown(getattr(recipe, saving.key)) for saving in titled),
                    format_bytes(plan.peak_bytes),
                    choice.pace,
                    found["passes_per_step"],
                    found["quality"],
                    plan.source,
                    fits,
                ]
            )
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for row in table:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            rows.append("  ".join(cells).rstrip())
        if self.cap_bytes is not None and sys.platform != "linux":
            rows += ["", WALL_NONE]
        return "\n".join(rows)

    def json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(self.record(), indent=2)


def survey(recipe: Recipe) -> Survey:
    """Return what a recipe needs, and what every other way to run its model would.

    Small models are rehearsed, each way in a fresh process, until a minute has passed; the rest,
    large models, and what a container cannot hold beside this process, are estimated. Nothing is
    trained and nothing is written.

    Raises:
      InputError, ModelError: the recipe cannot be run at all.
    """
    job = open_job(recipe)
    footprint = job.footprint()
    limit = memory_limit()
    base_bytes = footprint.libraries_bytes
    if limit is None or has_room(limit.bytes, base_bytes):
        base_bytes = load_libraries(footprint.libraries)
    until = time.monotonic() + REHEARSED_SECONDS
    correction = 1.0
    paces: dict[str, float | None] = {}
    choices: list[Choice] = []
    for changes in _ways(job):
        try:
            wanted = replace(recipe, **changes)
            own = open_job(wanted) if changes else job
            held = own.footprint()
            guess = estimate(held, base_bytes)
            late = choices and time.monotonic() > until
            if footprint.model_bytes > LARGE_BYTES or late or not _can_rehearse(guess, limit):
                plan = replace(
                    _scaled(guess, correction), seconds_per_step=paces.get(own.recipe.method)
                )
            else:
                plan = rehearse_apart(wanted)
                # the same passes in calls of another size take about as long
                paces.setdefault(own.recipe.method, plan.seconds_per_step)
        except InputError:
            if not changes:
                raise
            continue  # this model cannot take it
        if not choices and plan.source == "rehearsal":
            correction = plan.peak_bytes / guess.peak_bytes
        about = about_seconds(own.recipe, held.operations)
        choices.append(Choice(changes, own.recipe, plan, about))
    return Survey(choices[0], tuple(choices), recipe.cap_bytes, limit, job.name)


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


def _shown(value: Any) -> str:
    """Return the cell of a value: a switch as yes or no, no limit as `all`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "all" if value is None else str(value)


def _scaled(plan: Plan, factor: float) -> Plan:
    """Return an estimate with what a rehearsal of the same model says of its constants."""
    base, *_ = plan.phases[0].lines
    spare = plan.peak_bytes - base.bytes
    wanted = max(plan.peak_bytes * factor - base.bytes, 0)
    share = wanted / spare if spare else 1.0
    phases = tuple(
        replace(
            phase,
            lines=(
                phase.lines[0],
                *(replace(line, bytes=int(line.bytes * share)) for line in phase.lines[1:]),
            ),
        )
        for phase in plan.phases
    )
    return replace(plan, phases=phases)


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
