"""What squared errors are multiplied by: weights of timesteps, and masks of photos."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.picture_folders import MASK, shown
from edge_train.formats.pictures import Fit, read_picture

_SHAPES_DIFFER = 0.02  # of a mask and its photo, by width over height; rounding is less


def min_snr(
    signal: Array, timesteps: NDArray[np.int64], gamma: float, prediction_type: str
) -> Array:
    """Return the weight of each timestep, (timesteps,) float32.

    The share of signal to noise, s / (1 - s), is cut at gamma, so that timesteps of little noise,
    which are nearly solved, do not outweigh the others. Divided by the share itself for a model
    that predicts noise, and by one more than it for one that predicts v.

    Args:
      signal: (all timesteps,) share of signal variance.

    Source: min-SNR (arXiv:2303.09556). We differ in the weight where nothing but noise is left: 1
    for a model that predicts noise, where the published quotient has no value.

    >>> signal = np.array([0.5, 0.9], np.float32)
    >>> [f"{weight:.3f}" for weight in min_snr(signal, np.array([0, 1]), 5.0, "epsilon")]
    ['1.000', '0.556']
    """
    share = signal[timesteps].astype(np.float64)
    left = np.maximum(1 - share, np.finfo(np.float64).tiny)
    ratio = share / left
    if prediction_type == "v_prediction":
        return (np.minimum(ratio, gamma) / (ratio + 1)).astype(np.float32)
    return (gamma / np.maximum(ratio, gamma)).astype(np.float32)  # min(ratio, gamma) / ratio


def masks_beside(names: Mapping[str, Path]) -> dict[str, Path]:
    """Return the masks in a folder by the name of the picture that each is of.

    Args:
      names: pictures of the folder by their names without suffix.

    >>> found = {stem: Path(stem + ".png") for stem in ("a", "a.mask", "b", "c.Mask")}
    >>> masks_beside(found)
    {'a': PosixPath('a.mask.png'), 'c': PosixPath('c.Mask.png')}
    """
    return {
        stem[: -len(MASK)]: path
        for stem, path in names.items()
        if stem.casefold().endswith(MASK) and stem[: -len(MASK)]
    }


def read_mask(
    path: Path, photo: Path, size: tuple[int, int], fit: Fit
) -> tuple[Array, tuple[int, int]]:
    """Return a mask (height, width) of 0 to 1, cropped and resized as its photo was, and its size.

    What is transparent does not count.

    Args:
      size: of the photo, upright.

    Raises:
      InputError: it cannot be read, has another shape than its photo, or is black all over.
    """
    mask = read_picture(path, replace(fit, ground="black"), grey=True)
    shape, wanted = mask.size[0] / mask.size[1], size[0] / size[1]
    if abs(shape / wanted - 1) > _SHAPES_DIFFER:
        raise InputError(
            f"{shown(path)}: a mask of {mask.size[0]}x{mask.size[1]}, its photo "
            f"{shown(photo.name)} has {size[0]}x{size[1]}; save it in the same shape."
        )
    values: Array = (mask.pixels.reshape(mask.pixels.shape[:2]) / 255.0).astype(np.float32)
    if not values.any():
        raise InputError(
            f"{shown(path)}: a mask that is black or transparent all over, which leaves nothing of "
            "its photo to learn; paint white what counts, or remove it."
        )
    return values, mask.size


def in_cells(mask: Array, cell: int) -> Array:
    """Return the mean of a mask in every latent cell, (1, height / cell, width / cell) float32.

    >>> in_cells(np.array([[1, 0], [1, 1]], np.float32), 2).tolist()
    [[[0.75]]]
    """
    height, width = mask.shape
    parts = mask.reshape(height // cell, cell, width // cell, cell)
    shares: Array = parts.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
    return shares[None]


def weighted_losses(output: Array, target: Array, weights: Array) -> Array:
    """Return the mean of weighted squared errors of every sample, (samples,): the definition.

    Engines compute the same on their devices.

    Args:
      output, target: (samples, channels, height, width).
      weights: (samples, 1, height, width).
    """
    squares = np.square(output.astype(np.float64) - target) * weights
    means: Array = squares.mean(axis=(1, 2, 3)).astype(np.float32)
    return means
