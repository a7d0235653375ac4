"""Draws of a token's metric: what random directions of predictions ask of the token."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key
from edge_train.tasks.personalize.inversions import ManyTokens
from edge_train.tasks.personalize.objective import Personalize

_DRAW_STEP = -9  # the key of draws that no run makes


def metric_draws(
    runtime: ManyTokens,
    task: Personalize,
    start: Mapping[str, Array],
    count: int,
    *,
    together: int = 1,
    watch: Callable[[int], None] = lambda done: None,
) -> dict[str, Array]:
    """Return g = J^T v / sqrt(N) for `count` samples, by block, (count, width).

    A sample is a photo, a caption, a timestep and noise as in training; J is the derivative of the
    denoiser's output by the token's first vector at the start.

    Args:
      start: where training begins, by block.
      together: samples in a call.
      watch: told how many are done.
    """
    found: dict[str, list[Array]] = {name: [] for name in start}
    for first in range(0, count, together):
        key, own = Key(_DRAW_STEP, first), min(together, count - first)
        batch = replace(task, samples=own).batch(key)
        shape = batch["latents"].shape
        v = key.generator("pulled").standard_normal(shape, dtype=np.float32)
        vectors = {name: np.repeat(block[None], own, axis=0) for name, block in start.items()}
        _, gradients = runtime.backward_each(batch, vectors, v)
        for name, gradient in gradients.items():
            found[name].append(gradient[:, 0] / np.float32(np.sqrt(np.prod(shape[1:]))))
        watch(first + own)
    return {name: np.concatenate(parts) for name, parts in found.items()}
