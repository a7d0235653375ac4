"""A token that learns outside a run: real steps, whose point is read after any of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Point
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.optim.transforms import root_mean_square
from edge_train.rng import Key
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.objective import Personalize, PhotoCache
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

RADIUS = 0.1  # where a recipe names none: what the slope check of a run takes on a float engine


@dataclass
class TokenSteps:
    """A job with its photos encoded, its runtime open, and a rule that moves the token.

    `forwards` and `backwards` count single samples, of steps alone.
    """

    job: TokenJob
    cache: PhotoCache
    runtime: Any
    task: Personalize
    estimator: Any
    transform: Any
    state: dict[str, Any]
    forwards: int = 0
    backwards: int = 0

    @classmethod
    def open(
        cls, recipe: PersonalizeRecipe, prompts: Sequence[str] = (), method: str | None = None
    ) -> "TokenSteps":
        """Return the steps of a recipe.

        Args:
          prompts: further prompts that will be drawn; `{}` marks the token.
          method: whose steps these are, where that is not the recipe's.

        Raises:
          InputError, ModelError: as of a run.
        """
        recipe = replace(recipe, method=method or recipe.method)
        job = parts.check(recipe)
        cache = parts.encode_photos(job, *parts.load_job_photos(job))
        drawn = [job.ids(text) for text in (*prompts, "")]
        ids = {
            name: np.concatenate([own, *(text[name] for text in drawn)], axis=None)
            for name, own in cache.ids.items()
        }
        parameters = Parameters(job.start)
        runtime = parts.open_runtime(job, parameters, ids)
        scale = {name: root_mean_square(block) for name, block in job.start.items()}
        build = methods.get(job.recipe.method).builder(job.recipe.preset)
        epsilon = job.recipe.epsilon or RADIUS
        estimator, transform = build(job.recipe, Parts(epsilon=epsilon, scale=scale))
        state = {name: transform.init(block) for name, block in parameters.items()}
        return cls(job, cache, runtime, parts.build_task(job, cache), estimator, transform, state)

    @property
    def point(self) -> dict[str, Array]:
        """A copy of where the token is."""
        return {name: np.array(block) for name, block in self.runtime.parameters.items()}

    def move_to(self, point: Point) -> None:
        """Put the token somewhere; the rule's state stays."""
        for name, block in self.runtime.parameters.items():
            block[...] = point[name]

    def take(self, number: int) -> float:
        """Take step `number` of the recipe's seed; return its loss.

        Raises:
          NonFinite: a loss was not finite; nothing was applied.
        """
        key = Key(self.job.recipe.seed, number)
        parameters = self.runtime.parameters

        def apply(name: str, gradient: Array) -> None:
            update = self.transform.update(gradient, self.state[name], parameters[name])
            parameters.subtract(name, update, key)

        estimate = self.estimator.estimate(
            self.runtime, self.task, self.task.batch(key), key, apply
        )
        self.forwards += estimate.forwards
        self.backwards += estimate.backwards
        return float(estimate.loss)

    def held_loss(self, point: Point) -> float:
        """Return the loss of the fixed evaluation batch, which is no forward of a step."""
        losses = self.task.loss(self.runtime, self.task.evaluation(), [point])
        return float(losses.astype(np.float64).mean())
