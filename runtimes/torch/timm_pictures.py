"""A folder in timm's layout as a network on torch: normalized pixels in, features out."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edge_train.errors import ModelError
from edge_train.formats.timm_folder import TimmFolder
from edge_train.formats.weight_files import open_weights
from edge_train.runtimes.torch.timm_networks import FAMILIES
from edge_train.runtimes.torch.timm_networks.step import Step, Weights

_COUNTERS = "num_batches_tracked"  # of training, no weight
# what shapes that do not fit, or a weight that is missing, raise
_UNFIT = (RuntimeError, KeyError, ValueError, IndexError, TypeError, ZeroDivisionError)


class TimmNetwork(nn.Module):
    """Pixels (n, 3, side, side), normalized, to features (n, width).

    Attributes:
      steps: of it, in order.
      inner: the shape of one sample in front of each step.
      reads: the names of the tensors that each step reads.

    Raises:
      ModelError: its tensors are not those of its architecture, or one is missing or left over.
    """

    def __init__(self, folder: TimmFolder) -> None:
        super().__init__()
        self._places: dict[str, str] = {}
        for file in open_weights(folder.path):
            for name in file.entries:
                if not name.endswith(_COUNTERS) and not name.startswith(folder.kind.classifier):
                    self._places[name] = name.replace(".", "/")
                    values = torch.from_numpy(file.read(name))
                    self.register_buffer(self._places[name], values)
        self.steps: Sequence[Step] = FAMILIES[folder.kind.family](list(self._places), folder)
        self.inner: list[tuple[int, ...]] = []
        self.reads: list[set[str]] = []
        self._check(folder)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features."""
        return self.run(pixels, self._tensors())

    def part(self, pixels: Tensor, end: int) -> Tensor:
        """Return what the steps in front of one give."""
        return self.run(pixels, self._tensors(), 0, end)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor by timm's name."""
        found: Tensor = getattr(self, self._places[name])
        return found

    def run(
        self,
        values: Tensor,
        tensors: Mapping[str, Tensor],
        first: int = 0,
        end: int | None = None,
        seen: set[str] | None = None,
    ) -> Tensor:
        """Return what the steps from one to another give, with these tensors.

        Args:
          seen: gets the names of all that are read.
        """
        weights = Weights(tensors, set() if seen is None else seen)
        for step in self.steps[first:end]:
            values = step.run(weights.below(step.name) if step.name else weights, values)
        return values

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, place) for name, place in self._places.items()}

    def _check(self, folder: TimmFolder) -> None:
        """Run it once, on a black picture: it has to read each of its tensors.

        Raises:
          ModelError: as described.
        """
        found, tensors = torch.zeros(1, 3, folder.side, folder.side), self._tensors()
        try:
            for number in range(len(self.steps)):
                self.inner.append(tuple(found.shape[1:]))
                self.reads.append(set())
                with torch.no_grad():
                    found = self.run(found, tensors, number, number + 1, self.reads[-1])
        except MemoryError:
            raise
        except _UNFIT as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelError(
                f"{folder.path}: its tensors are not those of a {folder.architecture} ({reason}); "
                "download it again."
            ) from error
        left = sorted(set(self._places) - set().union(*self.reads))
        if left or found.shape != (1, folder.width):
            what = f"{left[0]!r} and {len(left) - 1} more are" if left else "its last layer is"
            raise ModelError(
                f"{folder.path}: {what} not of a {folder.architecture} as it is known here, so its "
                "features would be others; export it as ONNX where timm runs."
            )
