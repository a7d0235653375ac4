"""A token that learns outside a run: real steps, whose point is read after any of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Point
from edge_train.methods import methods
from edge_train.optim.transforms import root_mean_square
from edge_train.protocols import SeesNoise
from edge_train.rng import Key
from edge_train.run.settling import tail
from edge_train.tasks.personalize import encoding, parts
from edge_train.tasks.personalize.objective import Personalize, PhotoCache
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.radius import wanted_radius
from edge_train.tasks.personalize.recipe import PersonalizeRecipe


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
        cache = encoding.encode_photos(job, *encoding.load_job_photos(job))
        drawn = [job.ids(text) for text in (*prompts, "")]
        ids = {
            name: np.concatenate([own, *(text[name] for text in drawn)], axis=None)
            for name, own in cache.ids.items()
        }
        return cls.of(job, cache, ids)

    @classmethod
    def of(
        cls, job: TokenJob, cache: PhotoCache, ids: Mapping[str, NDArray[Any]] | None = None
    ) -> "TokenSteps":
        """Return the steps of a job whose photos are encoded.

        Args:
          ids: that prompts will need; those of the photos' captions, if not given.
        """
        recipe, parameters = job.recipe, Parameters(job.start)
        runtime = parts.open_runtime(job, parameters, cache.ids if ids is None else ids)
        scale = {name: root_mean_square(block) for name, block in job.start.items()}
        # what the slope check of a run takes, unless it finds rounding there
        smallest = job.serving.smallest_radius(job.model)
        epsilon = recipe.epsilon or wanted_radius(recipe, smallest)
        build = methods.get(recipe.method).builder(recipe.preset)
        own = job.parts(epsilon, scale)
        estimator, transform = build(recipe, own)
        state = {name: transform.init(block) for name, block in parameters.items()}
        return cls(job, cache, runtime, parts.build_task(job, cache), estimator, transform, state)

    def length(self, done: int) -> int:
        """Return how many steps there are, after so many: fewer once gradients are noise.

        As a run does it, which never skipped a step; called after every one of them.
        """
        recipe = self.job.recipe
        if recipe.fits:
            return recipe.fits[-1][1]
        rule, steps = self.transform, recipe.steps or 0
        noise = [isinstance(rule, SeesNoise) and rule.is_noise(own) for own in self.state.values()]
        ends = done + tail(done)
        if not all(noise) or ends >= steps:
            return steps
        self.job = replace(self.job, recipe=replace(recipe, fits=((done, ends),)))
        own = self.job.parts(0.0, dict.fromkeys(self.state, 1.0))
        self.transform = methods.get(recipe.method).builder(recipe.preset)(self.job.recipe, own)[1]
        return ends

    @property
    def step_forwards(self) -> int:
        """Forward passes of a step, in samples."""
        return methods.get(self.job.recipe.method).passes(self.job.recipe).forwards

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
