"""A frozen vision model of transformers or timm on torch: pixels in, features out."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.arrays.types import Array
from edge_train.errors import ModelError
from edge_train.formats.timm_folder import TimmFolder
from edge_train.formats.vision_folder import KINDS, VisionFolder
from edge_train.runtimes.torch.card import HOST, on_host, pick_device, repeatable
from edge_train.runtimes.torch.card_copies import move_network
from edge_train.runtimes.torch.timm_pictures import TimmNetwork

_POOLERS = ("pooler",)  # weights that may be missing, since they are not used


class VisionNetwork(nn.Module):
    """Pixels (n, side, side, 3) from 0 to 255, float32, to features (n, width)."""

    def __init__(self, folder: VisionFolder | TimmFolder) -> None:
        super().__init__()
        self.network: nn.Module
        if isinstance(folder, TimmFolder):
            self.network = TimmNetwork(folder)
        else:
            self.network = _Transformers(folder)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(folder.mean) * 255)
        self.register_buffer("deviation", torch.tensor(folder.deviation) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features."""
        values = ((pixels - self.mean) / self.deviation).permute(0, 3, 1, 2)
        found: Tensor = self.network(values)
        return found


class _Transformers(nn.Module):
    """Normalized pixels (n, 3, side, side) to features (n, width), by transformers' network."""

    def __init__(self, folder: VisionFolder) -> None:
        super().__init__()
        self._first = KINDS[folder.kind].first
        self.network = _loaded(folder)

    def forward(self, values: Tensor) -> Tensor:
        """Return the features."""
        found = self.network(pixel_values=values)
        if self._first:
            first: Tensor = found.last_hidden_state[:, 0]
            return first
        pooled: Tensor = found.pooler_output
        return pooled.flatten(1)


class TorchPictures:
    """A folder of transformers or timm as a backbone, in float32.

    Args:
      device: `cpu` or `cuda`.

    Raises:
      InputError: `cuda` was named and there is none.
      ModelError: it cannot be built, or weights are missing.
    """

    def __init__(
        self, folder: VisionFolder | TimmFolder, threads: int, device: str = "cpu"
    ) -> None:
        torch.set_num_threads(threads)
        self._folder, self._device = folder, pick_device(device)
        self._network = VisionNetwork(folder).eval().requires_grad_(False)
        if self._device != HOST:
            move_network(self._network, self._device)

    def __call__(self, pixels: NDArray[Any]) -> Array:
        """Return features (n, width) of pictures (n, side, side, 3).

        Raises:
          ModelError: they are of another size than the configuration says.
        """
        with torch.no_grad(), repeatable(self._device):
            given = torch.from_numpy(pixels).to(self._device)
            found = on_host(self._network(given.float()))
        if found.shape != (len(pixels), self._folder.width):
            raise ModelError(
                f"{self._folder.path}: it gave features of shape {found.shape}, its configuration "
                f"says {(len(pixels), self._folder.width)}."
            )
        return found

    def differentiable(self, pixels: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return features of pictures (n, side, side, 3) of float32, and the way back to pixels.

        The way back turns a gradient at the features, (n, width), into one at the pixels.
        """
        values = torch.from_numpy(pixels).requires_grad_(True)
        features = self._network(values)

        def back(error: Array) -> Array:
            (found,) = torch.autograd.grad(features, values, torch.from_numpy(error))
            gradient: Array = found.numpy()
            return gradient

        return features.detach().numpy(), back


def _loaded(folder: VisionFolder) -> Any:
    """Return the network with its weights."""
    kinds = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
    kind: Any = getattr(transformers, kinds.get(folder.kind, "AutoModel"))
    try:
        network, info = kind.from_pretrained(
            folder.path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except MemoryError:
        raise
    except Exception as error:  # what is in a folder raises what it likes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder.path}: transformers cannot load it ({reason}).") from error
    unused = _POOLERS if KINDS[folder.kind].first else ()
    missing = sorted(n for n in info["missing_keys"] if not n.startswith(unused))
    if missing:
        raise ModelError(
            f"{folder.path}: weights {missing[0]!r} and {len(missing) - 1} more are missing, so "
            "its features would be noise; download it again."
        )
    return network
