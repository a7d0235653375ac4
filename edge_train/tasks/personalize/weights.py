"""What squared errors are multiplied by: weights of timesteps, and masks of photos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.picture_folders import shown
from edge_train.formats.pictures import Fit, Pixels, read_picture
from edge_train.tasks.personalize.buckets import nearest

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


def middle_size(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return how much of a picture a crop to a shape leaves: (width, height), in its middle.

    >>> middle_size((200, 64), (32, 32))
    (64, 64)
    """
    (width, height), (across, down) = size, shape
    scale = min(width / across, height / down)
    return max(round(across * scale), 1), max(round(down * scale), 1)


def read_mask(
    path: Path,
    photo: Path,
    size: tuple[int, int],
    fit: Fit,
    offered: Sequence[tuple[int, int]] = (),
) -> tuple[Array, tuple[int, int]]:
    """Return a mask (height, width) of 0 to 1, cropped and resized as its photo was, and its size.

    What is transparent does not count.

    Args:
      size: of the photo, upright.
      offered: sizes (width, height) that `--buckets` would allow, where it can be used.

    Raises:
      InputError: it cannot be read, has another shape than its photo, or nothing of it is left.
    """
    fit = replace(fit, ground="black")
    mask = read_picture(path, fit, grey=True)
    shape, wanted = mask.size[0] / mask.size[1], size[0] / size[1]
    if abs(shape / wanted - 1) > _SHAPES_DIFFER:
        raise InputError(
            f"{shown(path)}: a mask of {mask.size[0]}x{mask.size[1]}, its photo "
            f"{shown(photo.name)} has {size[0]}x{size[1]}; save it in the same shape, or give "
            "the photo another name, to train it without a mask."
        )
    values: Array = (mask.pixels.reshape(mask.pixels.shape[:2]) / 255.0).astype(np.float32)
    if not values.any():
        cut = f"{shown(photo.name)} from {size[0]}x{size[1]}"
        raise InputError(f"{shown(path)}: {_why_black(path, mask.size, cut, fit.size, offered)}")
    return values, mask.size


def _why_black(
    path: Path,
    size: tuple[int, int],
    photo: str,
    trained: tuple[int, int],
    offered: Sequence[tuple[int, int]],
) -> str:
    """Return why nothing of a mask is left, and what to do about that.

    Args:
      size: of the mask, (width, height).
      photo: its name and size, for the sentence.
    """
    grey = read_picture(path, Fit(size, ground="black"), grey=True).pixels[..., 0]
    if not grey.any():
        return (
            "a mask that is black or transparent all over, which leaves nothing of its photo to "
            "learn; paint white what counts, or remove it."
        )
    left = _middle_of(grey, trained)
    if not left.any():
        helps = offered and _middle_of(grey, nearest(size, offered)).any()
        buckets = "add --buckets, which crops less, " if helps else ""
        return (
            f"all that is white in it lies outside of the middle in the shape {trained[0]}x"
            f"{trained[1]}, to which {photo} is cropped; {buckets}crop both around what counts, "
            "or remove the mask."
        )
    return (
        f"a mask with so little white ({np.count_nonzero(left)} of {left.size} pixels are not "
        f"black, the brightest has {left.max()} of 255) that none is left at {trained[0]}x"
        f"{trained[1]}; paint white what counts, or remove it."
    )


def _middle_of(grey: Pixels, shape: tuple[int, int]) -> Pixels:
    """Return what a crop to a shape (width, height) leaves of a picture (height, width)."""
    height, width = grey.shape
    across, down = middle_size((width, height), shape)
    top, left = (height - down) // 2, (width - across) // 2
    return grey[top : top + down, left : left + across]


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
