"""Mistakes of a network as its report shows them: a picture, or the numbers of a row."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_train.formats.atomic import write_bytes
from edge_train.records.folder import RunFolder
from edge_train.tasks.mistakes import Mistake, record
from edge_train.tasks.network.datasets import Samples

_MOST_NUMBERS = 12  # of a row


def shown(
    mistakes: Sequence[Mistake], samples: Samples, names: Sequence[str], folder: Path
) -> list[dict[str, Any]]:
    """Return mistakes for the journal; pictures of them go into the samples of `folder`.

    Raises:
      RunFolderError: a picture cannot be written.
    """
    found = []
    for number, mistake in enumerate(mistakes, 1):
        sample = samples.inputs[mistake.row]
        if is_picture(sample):
            path = RunFolder(folder).samples / f"mistake-{number:02d}.png"
            write_bytes(path, _png(sample))
            found.append(record(mistake, names, picture=path.relative_to(folder).as_posix()))
        elif sample.ndim == 1:
            more = ", ..." if sample.size > _MOST_NUMBERS else ""
            text = ", ".join(f"{value:.4g}" for value in sample[:_MOST_NUMBERS]) + more
            found.append(record(mistake, names, text=text))
        else:
            found.append(record(mistake, names))
    return found


def is_picture(sample: NDArray[Any]) -> bool:
    """Return whether a sample is (height, width, 1 or 3 channels)."""
    return sample.ndim == 3 and sample.shape[-1] in (1, 3)


def _png(sample: NDArray[Any]) -> bytes:
    if sample.dtype != np.uint8:  # of any range; what is darkest becomes black
        low, high = float(sample.min()), float(sample.max())
        sample = np.round((sample - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(sample[..., 0] if sample.shape[-1] == 1 else sample).save(buffer, "PNG")
    return buffer.getvalue()
