"""Every way to run a model: what each one holds and takes, and the cheapest one that fits."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_train.errors import InputError
from edge_train.jobs import open_job
from edge_train.jobs.protocol import Job
from edge_train.plan import LARGE_BYTES, Plan, estimate, load_libraries, needs
from edge_train.recipe import Recipe
from edge_train.rehearsal import rehearse_apart
from edge_train.units import format_bytes

_BATCHES: tuple[Mapping[str, Any], ...] = ({}, {"batch_limit": 8}, {"batch_limit": 1})
_QUANTS = ("none", "int8", "int4")
_HEAD = ("method", "runtime", "weights", "samples a call", "lean", "pictures")
_REHEARSED_SECONDS = 60.0  # after that the other choices are estimated from what was measured


@dataclass(frozen=True)
class Choice:
    """One way to run, as recipe keys that differ from what was asked, and its plan."""

    changes: Mapping[str, Any]
    recipe: Recipe
    plan: Plan

    def record(self, cap_bytes: int | None) -> dict[str, Any]:
        """Return plain values."""
        names = ("method", "runtime", "quant", "batch_limit", "lean", "previews")
        return {
            **{name: getattr(self.recipe, name) for name in names},
            "peak_bytes": self.plan.peak_bytes,
            "seconds_per_step": self.plan.seconds_per_step,
            "source": self.plan.source,
            "fits": cap_bytes is None or self.plan.peak_bytes <= cap_bytes,
        }

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
            best = min(fitting, key=lambda choice: (len(choice.changes), -choice.plan.peak_bytes))
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
        head = [*_HEAD, "bytes", "seconds a step", "", ""]
        table = [head]
        for choice in self.choices:
            recipe, plan, found = choice.recipe, choice.plan, choice.record(self.cap_bytes)
            pace = plan.seconds_per_step
            fits = "" if self.cap_bytes is None else "fits" if found["fits"] else "too large"
            table.append(
                [
                    *(recipe.method, recipe.runtime, recipe.quant),
                    str(recipe.batch_limit or "as many as pay"),
                    "yes" if recipe.lean else "no",
                    "yes" if recipe.previews else "no",
                    format_bytes(plan.peak_bytes),
                    "not known" if pace is None else f"{pace:.3g}",
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
    base_bytes = load_libraries(footprint)
    until = time.monotonic() + _REHEARSED_SECONDS
    correction = 1.0
    choices: list[Choice] = []
    for changes in _ways(job):
        wanted = replace(recipe, **changes)
        try:
            own = job if not changes else open_job(wanted)
        except InputError:
            continue  # a way that this model cannot take, such as a rank beyond its sides
        guess = estimate(own.footprint(), base_bytes)
        if footprint.model_bytes > LARGE_BYTES or (choices and time.monotonic() > until):
            choices.append(Choice(changes, own.recipe, _scaled(guess, correction)))
            continue
        try:
            plan = rehearse_apart(wanted)
        except InputError:
            if not changes:
                raise
            continue  # a way that this model cannot take, such as weights it cannot learn from
        if not choices:
            correction = plan.peak_bytes / guess.peak_bytes
        choices.append(Choice(changes, own.recipe, plan))
    return Survey(choices[0], tuple(choices), recipe.cap_bytes)


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
    methods: Sequence[str] = ("zo",) if recipe.runtime == "onnx" else ("backprop", "zo")
    diffusion = recipe.task == "personalize"
    quants: Sequence[str] = (recipe.quant,)
    if recipe.task == "language-model":
        methods, quants = (recipe.method, "q-galore"), ("none", "int8")
    if diffusion and recipe.runtime == "torch":
        quants = _QUANTS
    leans = (False, True) if recipe.runtime in ("onnx", "ort-training") else (False,)
    previews = (True, False) if diffusion else (True,)
    seen = set()
    wanted = (recipe.method, recipe.quant, recipe.batch_limit, recipe.lean, recipe.previews)
    combinations = [wanted] + [
        (method, quant, batch.get("batch_limit", recipe.batch_limit), lean, shown)
        for shown in previews
        for lean in leans
        for batch in _BATCHES
        for method in sorted(methods, key=lambda name: name != recipe.method)
        for quant in quants
    ]
    names = ("method", "quant", "batch_limit", "lean", "previews")
    for values in combinations:
        if values in seen:
            continue
        seen.add(values)
        yield {
            name: value
            for name, value, asked in zip(names, values, wanted, strict=True)
            if value != asked
        }
