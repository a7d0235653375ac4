"""About how long a run takes: what it computes, counted on shapes, over the pace of this machine.

A pass costs its operations and, of a small model above all, the calls that it is made of. The
first go by how fast this machine multiplies float32 matrices of middling size, the second by how
fast it interprets Python: both are timed in a process of its own that takes half a second, longer
on a busy machine, whose share for one program is part of what is timed. What an engine makes of
either stands in its record (`Pace`), measured on the machine whose numbers are below. A run that
begins has no need of either (`expected.py`).
"""

import math
from dataclasses import asdict, dataclass, replace
from functools import cache

from edge_train.memory.apart import run_apart
from edge_train.memory.footprint import Footprint
from edge_train.memory.link import ENVIRONMENT
from edge_train.methods import methods, scored_samples
from edge_train.methods.method import GRADIENT
from edge_train.recipe import Recipe
from edge_train.runtimes.engine import engines
from edge_train.tasks import task_of

_SIDE, _REPEATS, _ROUNDS = 768, 24, 200_000  # half a second where nothing else runs
_LOOP_SECONDS = 0.0142  # of the probe, on the machine where the paces of engines were measured
_PROBE = (
    "import time, numpy as np\n"
    f"a = np.ones(({_SIDE}, {_SIDE}), np.float32); out = np.empty_like(a)\n"
    "np.dot(a, a, out); products = loops = 0.0\n"
    f"for _ in range({_REPEATS}):\n"
    "    began = time.perf_counter(); np.dot(a, a, out); products += time.perf_counter() - began\n"
    "    began = time.perf_counter(); total = 0\n"
    f"    for number in range({_ROUNDS}): total += number\n"
    "    loops += time.perf_counter() - began\n"
    f"print(products / {_REPEATS}, loops / {_REPEATS})\n"  # means: a busy machine is part of it
)


@dataclass(frozen=True)
class Machine:
    """How fast a machine is: float32 operations a second, and how many times as slow in Python."""

    rate: float
    slowness: float


REFERENCE = Machine(9.5e10, 1.0)  # of one thread, where the paces of engines were measured


@dataclass(frozen=True)
class Prediction:
    """What a run takes, in seconds.

    Attributes:
      start: until the first evaluation.
      evaluation, evaluations: of one, and how many.
      step, steps: likewise.
      after: of what is made and scored when the last step was taken.
    """

    start: float
    evaluation: float
    evaluations: float
    step: float
    steps: float
    after: float

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.start + self.rest + self.evaluation

    def steps_within(self, seconds: float) -> int:
        """Return how many steps fit into a time, with start, evaluations and end; 0: none."""
        around = self.start + self.after + 2 * self.evaluation
        every = max(self.steps / max(self.evaluations - 1, 1), 1.0)  # steps between evaluations
        each = self.step + self.evaluation / every
        fit = math.floor((seconds - around) / each) if each > 0 else int(self.steps)
        return max(min(fit, int(self.steps)), 0)

    @property
    def rest(self) -> float:
        """Of all that follows the first evaluation."""
        return self.evaluation * (self.evaluations - 1) + self.step * self.steps + self.after


def in_words(seconds: float) -> str:
    """Return a duration that is not exact, in two digits.

    >>> in_words(47.3), in_words(100), in_words(754), in_words(20000)
    ('about 47 s', 'about 1.7 minutes', 'about 13 minutes', 'about 5.6 hours')
    """
    if seconds < 90:
        return f"about {max(seconds, 1):.2g} s"
    if seconds < 5400:
        return f"about {seconds / 60:.2g} minutes"
    return f"about {float(f'{seconds / 3600:.2g}'):g} hours"


def passes(recipe: Recipe, backward: int = 0) -> float:
    """Return forward passes of one sample that a step is worth.

    Args:
      backward: of those, what a backward pass is worth; 0: what its task says.
    """
    found = methods.get(recipe.method).passes(recipe)
    return (
        scored_samples(recipe)
        + found.forwards
        + found.backwards * (backward or task_of(recipe).backward)
    )


def predict(recipe: Recipe, held: Footprint, machine: Machine | None = None) -> Prediction | None:
    """Return how long a run will take here; None where its operations were not counted.

    Args:
      recipe: with every default filled in.
      machine: timed if not given.
    """
    if not held.operations:
        return None
    machine = machine or this_machine(recipe.threads or 1)
    every, steps = recipe.evaluate_every or 1, recipe.steps or 0
    sizes = (getattr(recipe, "evaluation_samples", None), held.evaluated)
    evaluated = min((size for size in sizes if size), default=held.together)
    pace = task_of(recipe).use(recipe.runtime).pace
    text = held.written * held.products * pace.product_seconds * machine.slowness
    first = replace(held, operations=held.before_operations or held.operations)
    drawn = _pass_seconds(recipe, first, machine, held.before, held.together)
    return Prediction(
        start=pace.start_seconds * machine.slowness + text + drawn,
        evaluation=_pass_seconds(recipe, held, machine, evaluated, held.together),
        evaluations=1 + math.ceil(steps / every),
        step=_step_seconds(recipe, held, machine),
        steps=steps,
        after=_pass_seconds(recipe, held, machine, held.after, held.together) + text,
    )


def work_of(recipe: Recipe, held: Footprint) -> dict[str, float]:
    """Return what a run computes, as it would take on the machine of the paces, to keep in a plan.

    Where operations were not counted, each sample's pass is one.
    """
    counted = held if held.operations else replace(held, operations=1.0, together=1)
    found = predict(recipe, counted, REFERENCE)
    assert found is not None
    return asdict(found)


def _step_seconds(recipe: Recipe, held: Footprint, machine: Machine) -> float:
    """Return the seconds of a step: its passes, and what it does with every trained number."""
    worth = passes(recipe, held.backward) * held.beside
    if GRADIENT in methods.get(recipe.method).needs:
        at_once = (recipe.samples or 1) * held.beside
        for limit in (getattr(recipe, "micro_batch", None), recipe.batch_limit):
            at_once = min(at_once, limit or at_once)
        times = 1.0
    else:
        at_once = held.together
        samples = (recipe.samples or 1) * held.beside
        times = worth / samples  # a direction is drawn anew for every point
    pace = task_of(recipe).use(recipe.runtime).pace
    update = times * held.trained * pace.number_seconds * machine.slowness
    return update + _pass_seconds(recipe, held, machine, worth, at_once)


def _pass_seconds(
    recipe: Recipe, held: Footprint, machine: Machine, samples: float, together: int
) -> float:
    """Return the seconds of so many samples' passes, in calls of `together` at most."""
    engine = engines.get(recipe.runtime)
    pace = task_of(recipe).use(recipe.runtime).pace
    gain = engine.gains.get(recipe.quant, 1.0) * engine.gains.get(recipe.dtype, 1.0) * pace.share
    gain *= pace.lean if recipe.lean else 1.0
    calls = math.ceil(samples / together)
    each = held.products * pace.product_seconds * machine.slowness
    between = held.moved * pace.moved_seconds * REFERENCE.rate / machine.rate
    return calls * each + samples * (held.operations / (gain * machine.rate) + between)


@cache
def this_machine(threads: int) -> Machine:
    """Return how fast this machine is with so many threads, or with one where they do not pay."""
    one = _probed(1)
    most = one.rate if threads == 1 else max(one.rate, _probed(threads).rate)
    return Machine(most, one.slowness)


def _probed(threads: int) -> Machine:
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": str(threads)}
    done = run_apart(_PROBE, environment=environment)
    done.check_returncode()
    product, loop = map(float, done.stdout.split())
    return Machine(2 * _SIDE**3 / product, loop / _LOOP_SECONDS)
