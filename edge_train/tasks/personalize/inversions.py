"""Tokens of many things learned side by side by exact gradients: a sample a step for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from edge_train.arrays.types import Array, Batch
from edge_train.optim.transforms import Adam, root_mean_square
from edge_train.rng import Key
from edge_train.tasks.personalize.objective import Personalize

STEPS = 200
_RATE = 0.2  # of the start's root mean square, as the default of exact gradients has it
_AVERAGED = 0.5  # of the steps, the last ones: one sample a step leaves an end that trembles


class ManyTokens(Protocol):
    """A runtime where every sample has a token of its own."""

    def backward_each(
        self, batch: Batch, vectors: Mapping[str, Array], pulled: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Return losses (B,), and their gradients by vectors (B, vectors, width), by block."""
        ...


def invert(
    runtime: ManyTokens,
    tasks: Sequence[Personalize],
    start: Mapping[str, Array],
    *,
    steps: int = STEPS,
    seeds: Sequence[int],
    watch: Callable[[int], None] = lambda step: None,
) -> dict[str, Array]:
    """Return what each thing's token has become, by block, (things, vectors, width).

    Adam on one sample a step, its rate falling as a cosine to 0; the result is the mean of the last
    half of the steps.

    Args:
      tasks: one for each thing, of one model; their own counts of samples are not read.
      start: where every token starts, by block.
      seeds: of each thing's draws.
      watch: told the step that is done.

    Memory: activations of one sample for each thing.
    """
    count = len(tasks)
    points = {name: np.repeat(block[None], count, axis=0) for name, block in start.items()}
    rates = {name: _RATE * root_mean_square(block) for name, block in start.items()}
    adam, ones = Adam(), [replace(task, samples=1) for task in tasks]
    state = {name: adam.init(block) for name, block in points.items()}
    totals = {name: np.zeros_like(block) for name, block in points.items()}
    first = int(steps * (1 - _AVERAGED))
    for step in range(steps):
        drawn = [task.batch(Key(seed, step)) for task, seed in zip(ones, seeds, strict=True)]
        batch = {name: np.concatenate([own[name] for own in drawn]) for name in drawn[0]}
        _, gradients = runtime.backward_each(batch, points)
        share = 0.5 * (1 + np.cos(np.pi * step / steps))
        for name, gradient in gradients.items():
            update = adam.update(gradient, state[name], points[name])
            points[name] -= np.float32(rates[name] * share) * np.asarray(update)
            if step >= first:
                totals[name] += points[name]
        watch(step)
    return {name: total / np.float32(steps - first) for name, total in totals.items()}
