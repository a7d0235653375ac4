"""Pictures from a denoiser: DDIM with classifier-free guidance, in NumPy."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch

Predict = Callable[[Batch], Array]


_LEAST_SIGNAL = 2.0**-24  # what diffusers takes for none, where a model predicts noise


def ddim_timesteps(train_steps: int, steps: int, spacing: str = "leading") -> NDArray[np.int64]:
    """Return the timesteps to visit, noisiest first, as diffusers spaces them (offset 1).

    Where the offset would lead past the last timestep, with as many steps as there are timesteps,
    there is none.

    Args:
      steps: at most `train_steps`.

    >>> ddim_timesteps(1000, 4).tolist(), ddim_timesteps(1000, 4, "trailing").tolist()
    ([751, 501, 251, 1], [999, 749, 499, 249])
    """
    if spacing == "trailing":
        found = np.round(np.arange(train_steps, 0, -train_steps / steps)[:steps]) - 1
    elif spacing == "linspace":
        found = np.linspace(0, train_steps - 1, steps).round()[::-1]
    elif spacing == "leading":
        found = (np.arange(steps) * (train_steps // steps))[::-1]
        found += min(1, train_steps - 1 - int(found[0]))
    else:
        raise ValueError(f"no spacing of timesteps {spacing!r}")
    return found.astype(np.int64)


def sample(
    predict: Predict,
    prompts: Mapping[str, NDArray[np.int64]],
    empty: Mapping[str, NDArray[np.int64]],
    noise: Array,
    signal: Array,
    *,
    steps: int,
    guidance: float,
    prediction_type: str,
    constant: Mapping[str, Array],
    spacing: str = "leading",
    zeroes_empty: bool = False,
) -> Array:
    """Return latents (pictures, channels, height, width) that follow the prompts.

    Args:
      predict: the denoiser: latents, timesteps and ids to its raw output.
      prompts: ids of each picture's prompt, (pictures, length), per text encoder.
      empty: ids of the empty prompt, (length,), per text encoder.
      noise: standard normal start, (pictures, channels, height, width).
      signal: (timesteps,) share of signal variance.
      steps: denoiser calls, at most one a timestep; each evaluates every picture twice (with and
        without the prompt).
      guidance: 1 follows the model, larger values follow the prompt more.
      spacing: which timesteps are visited: `leading`, `trailing` or `linspace`.
      zeroes_empty: without the prompt, the denoiser is told zeros, not the empty prompt.

    Source: DDIM (arXiv:2010.02502) with eta 0; classifier-free guidance (arXiv:2207.12598).
    """
    pictures = len(noise)
    both: dict[str, NDArray[Any]] = {
        name: np.concatenate([np.stack([empty[name]] * pictures), ids])
        for name, ids in prompts.items()
    }
    both |= {name: np.stack([value] * (2 * pictures)) for name, value in constant.items()}
    if zeroes_empty:
        both["blank"] = np.arange(2 * pictures) < pictures
    latents = noise
    stride = len(signal) // steps
    for timestep in ddim_timesteps(len(signal), steps, spacing):
        batch = {
            "latents": np.concatenate([latents, latents]),
            "timesteps": np.full(2 * pictures, timestep),
            **both,
        }
        without, with_prompt = np.split(predict(batch), 2)
        output = without + np.float32(guidance) * (with_prompt - without)
        now = float(signal[timestep])
        before = float(signal[max(timestep - stride, 0)])
        clean, direction = _split(output, latents, now, prediction_type)
        latents = (np.sqrt(before) * clean + np.sqrt(1 - before) * direction).astype(np.float32)
    return latents


def _split(output: Array, latents: Array, signal: float, prediction_type: str) -> tuple[Any, Any]:
    """Return what the output says of the clean latents and of the noise."""
    root_signal, root_noise = np.sqrt(signal), np.sqrt(1 - signal)
    if prediction_type == "epsilon":
        root_signal = max(root_signal, np.sqrt(_LEAST_SIGNAL))
        return (latents - root_noise * output) / root_signal, output
    clean = root_signal * latents - root_noise * output
    return clean, root_signal * output + root_noise * latents
