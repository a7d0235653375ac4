"""A zo step outside a run: no journal, no evaluation, no guard, nothing but its passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.optim.transforms import root_mean_square
from edge_train.rng import Key
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.objective import Personalize, PhotoCache
from edge_train.tasks.personalize.parts import TokenJob

_EPSILON = 0.1


@dataclass(frozen=True)
class ZoStep:
    """What is needed to take steps: `take(number)`; each has `forwards` forward passes."""

    take: Callable[[int], None]
    forwards: int
    runtime: Any
    task: Personalize
    parameters: Parameters


def zo_step(job: TokenJob, cache: PhotoCache) -> ZoStep:
    """Open the runtime of a job; return its step."""
    parameters, recipe = Parameters(job.start), job.recipe
    ids: Mapping[str, NDArray[Any]] = dict(cache.ids)
    runtime: Any = parts.open_runtime(job, parameters, ids)
    task = parts.build_task(job, cache)
    scale = {name: root_mean_square(block) for name, block in job.start.items()}
    build = methods.get(recipe.method).builder(recipe.preset)
    estimator, transform = build(recipe, Parts(epsilon=_EPSILON, scale=scale))
    state = {name: transform.init(block) for name, block in parameters.items()}

    def apply(name: str, gradient: Array) -> None:
        update = transform.update(gradient, state[name], parameters[name])
        parameters.subtract(name, update, Key(0, 0))

    def take(number: int) -> None:
        key = Key(0, number)
        estimator.estimate(runtime, task, task.batch(key), key, apply)

    queries = recipe.queries or 1
    forwards = (recipe.samples or 1) * (queries + 1 if recipe.sides == 1 else 2 * queries)
    return ZoStep(take, forwards, runtime, task, parameters)
