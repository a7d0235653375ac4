"""Every way to run a model: what each one holds and takes, and the cheapest one that fits."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from edge_train.errors import InputError
from edge_train.run.known_quality import known_quality
from edge_train.memory.plan import LARGE_BYTES, Plan, estimate, load_libraries, needs
from edge_train.run.pace import about_seconds
from edge_train.recipe import Recipe
from edge_train.run.rehearsal import rehearse_apart
from edge_train.tasks import open_job
from edge_train.tasks.job import Job
from edge_train.units import format_bytes

_BATCHES = (None, 8, 1)
# What may be chosen, by task and runtime, the one that gives up least first. A list of values that
# the model cannot take (weights it cannot learn from, a rank it has no room for) is left out.
_AXES: dict[tuple[str, str], Mapping[str, Sequence[Any]]] = {
    ("personalize", "torch"): {
        "previews": (True, False),
        "lean": (False, True),
        "batch_limit": _BATCHES,
        "method": ("backprop", "zo"),
        "quant": ("none", "int8", "int4"),
    },
    ("personalize", "onnx"): {
        "previews": (True, False),
        "lean": (False, True),
        "batch_limit": _BATCHES,
    },
    ("classify", "torch"): {
        "batch_limit": _BATCHES,
        "method": ("adamw", "adamw8bit", "galore", "q-galore", "apollo-mini", "zo"),
    },
    ("classify", "ort-training"): {
        "lean": (False, True),
        "batch_limit": _BATCHES,
        "method": ("adamw", "adamw8bit", "galore", "q-galore", "apollo-mini", "zo"),
    },
    ("language-model", "torch"): {
        "lean": (False, True),
        "micro_batch": (None, 1),
        "method": ("adamw", "adamw8bit", "galore", "q-galore", "apollo-mini"),
        "quant": ("none", "int8", "int4"),
    },
    ("network", "numpy"): {
        "batch_limit": _BATCHES,
        "method": ("backprop", "local", "tpsgd", "dfa", "drtp"),
        "quant": ("none", "int8"),
    },
}
_HEAD = ("method", "runtime", "weights", "samples a call", "micro-batch", "lean", "pictures")
_GIVEN_UP = (
    "batch_limit",
    "lean",
    "micro_batch",
    "quant",
    "method",
    "previews",
)  # the cheapest first
_KEYS = ("method", "quant", "batch_limit", "micro_batch", "lean", "previews")
_REHEARSED_SECONDS = 60.0  # after that the other choices are estimated from what was measured


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
            **{name: getattr(recipe, name) for name in (*_KEYS, "runtime")},
            "peak_bytes": self.plan.peak_bytes,
            "seconds_per_step": self.plan.seconds_per_step,
            "about_seconds": self.about_seconds,
            "passes_per_step": _passes(recipe),
            "quality": known_quality(recipe),
            "source": self.plan.source,
            "fits": cap_bytes is None or self.plan.peak_bytes <= cap_bytes,
        }

    @property
    def given_up(self) -> int:
        """How much it gives up: less than any one thing that comes later among `_GIVEN_UP`."""
        return sum(2**index for index, name in enumerate(_GIVEN_UP) if name in self.changes)

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
        words = []
        for name, value in self.changes.items():
            switch = {"lean": "--lean", "previews": "--no-previews"}.get(name)
            words.append(switch or f"--{name.replace('_', '-')} {value}")
        return " ".join(words)


@dataclass(frozen=True)
class Survey:
    """The plan that was asked for, and all choices, the asked one first."""

    asked: Choice
    choices: tuple[Choice, ...]
    cap_bytes: int | None

    @property
    def fits(self) -> bool:
        """Whether the asked plan fits."""
        return self.cap_bytes is None or self.asked.plan.peak_bytes <= self.cap_bytes

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
            cap = -(-least.plan.peak_bytes // 10_000_000) * 10
            how = f" {least.flags}" if least.changes else ""
            advice = f"Nothing fits; the smallest cap that does is --mem {cap}MB{how}"
        return f"{sentence} {advice}; `edge-train plan` lists every line."

    def record(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "cap_bytes": self.cap_bytes,
            "fits": self.fits,
            "plan": self.asked.plan.record(),
            "choices": [choice.record(self.cap_bytes) for choice in self.choices],
            "refusal": None if self.fits else self.refusal(),
        }

    def text(self) -> str:
        """Return every line and every choice, for people."""
        rows = [self.asked.plan.text(), ""]
        head = [*_HEAD, "bytes", "seconds a step", "passes", "quality, measured", "bytes by", ""]
        table = [head]
        for choice in self.choices:
            recipe, plan, found = choice.recipe, choice.plan, choice.record(self.cap_bytes)
            fits = "" if self.cap_bytes is None else "fits" if found["fits"] else "too large"
            table.append(
                [
                    *(recipe.method, recipe.runtime, recipe.quant),
                    str(recipe.batch_limit or "as many as pay"),
                    str(recipe.micro_batch or "all"),
                    "yes" if recipe.lean else "no",
                    "yes" if recipe.previews else "no",
                    format_bytes(plan.peak_bytes),
                    choice.pace,
                    _passes(recipe),
                    known_quality(recipe),
                    plan.source,
                    fits,
                ]
            )
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        for row in table:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            rows.append("  ".join(cells).rstrip())
        return "\n".join(rows)

    def json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(self.record(), indent=2)


def survey(recipe: Recipe) -> Survey:
    """Return what a recipe needs, and what every other way to run its model would.

    Small models are rehearsed, each way in a fresh process, until a minute has passed; the rest,
    and large models, are estimated. Nothing is trained and nothing is written.

    Raises:
      InputError, ModelError: the recipe cannot be run at all.
    """
    job = open_job(recipe)
    footprint = job.footprint()
    base_bytes = load_libraries(footprint.libraries)
    until = time.monotonic() + _REHEARSED_SECONDS
    correction = 1.0
    paces: dict[str, float | None] = {}
    choices: list[Choice] = []
    for changes in _ways(job):
        try:
            wanted = replace(recipe, **changes)
            own = open_job(wanted) if changes else job
            held = own.footprint()
            guess = estimate(held, base_bytes)
            if footprint.model_bytes > LARGE_BYTES or (choices and time.monotonic() > until):
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
        if not choices:
            correction = plan.peak_bytes / guess.peak_bytes
        about = about_seconds(own.recipe, held.operations)
        choices.append(Choice(changes, own.recipe, plan, about))
    return Survey(choices[0], tuple(choices), recipe.cap_bytes)


def _passes(recipe: Recipe) -> str:
    """Return the passes through the model in a step, a sample each, as words.

    >>> _passes(Recipe(method="zo", samples=1, queries=4, sides=1))
    '5 forward'
    """
    samples = recipe.samples or 1
    if recipe.method == "zo":
        sides, queries = recipe.sides or 1, recipe.queries or 1
        return f"{samples * (queries + 1 if sides == 1 else 2 * queries)} forward"
    if recipe.method in ("tpsgd", "local", "drtp"):
        return f"{samples} forward"
    if recipe.method == "dfa":
        return f"{2 * samples} forward"
    return f"{samples} forward and back"


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
    asked = {name: getattr(recipe, name) for name in _KEYS}
    if recipe.task == "classify" and asked["method"] == "backprop":
        asked["method"] = "adamw"  # one thing with two names there
    axes = _AXES[recipe.task, recipe.runtime]
    # what was asked for comes first, whatever it is
    values = [[asked[name], *(v for v in axis if v != asked[name])] for name, axis in axes.items()]
    if recipe.samples == 1 and "micro_batch" in axes:  # there is nothing to take apart
        values[list(axes).index("micro_batch")] = [asked["micro_batch"]]
    yield {}
    for combination in product(*values):
        wanted = dict(zip(axes, combination, strict=True))
        changes = {name: value for name, value in wanted.items() if value != asked[name]}
        if changes:
            yield changes
