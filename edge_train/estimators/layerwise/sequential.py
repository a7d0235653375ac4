"""The sequential mode: train a block to its end, write what it gives to disk, go on to the next."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch
from edge_train.errors import RunFolderError
from edge_train.estimators.layerwise.tpsgd import LocalRule, train_block
from edge_train.protocols import Apply, BlockwiseRuntime, Estimate, Objective
from edge_train.rng import Key

_TOGETHER = 100  # samples that pass through the finished blocks at once


@dataclass
class Sequential:
    """Trains one block at a time; finished blocks are run once for all samples, not every step.

    Which block a step trains follows from its number. The outputs of the finished blocks lie in a
    file of float32 rows and only those of the batch are read. (They are not mapped into memory:
    mapped pages count as held.) The file is a pure function of the finished blocks and is made
    again where it is missing, so a resumed run ends with the same bits.

    Args:
      rule: how a block is trained, as for `LayerByLayer`.
      steps: of the whole run, shared equally among the blocks.
      folder: where the file goes; made if missing.
      samples: how many there are to train on.
      inputs: rows of training inputs, float32, by their numbers.
    """

    rule: LocalRule
    steps: int
    folder: Path
    samples: int
    inputs: Callable[[NDArray[Any]], Array]
    _block: int = 0
    _file: int | None = field(default=None, repr=False)

    def estimate(
        self, runtime: BlockwiseRuntime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Emit the gradients of the block whose turn it is.

        Raises:
          NonFinite: the local loss was not finite; nothing was applied.
          RunFolderError: the outputs of finished blocks cannot be written.
        """
        blocks = runtime.blocks
        index = min(key.step * len(blocks) // self.steps, len(blocks) - 1)
        if index != self._block:
            self._store(runtime, index)
        values = batch["inputs"]
        if index:
            values = self._rows(batch["index"], blocks[index].input_shape)
        _, loss = train_block(runtime, index, values, batch["labels"], self.rule, apply)
        losses = tuple(loss if i == index else None for i in range(len(blocks)))
        return Estimate(loss, (), forwards=len(values), block_losses=losses)

    def _store(self, runtime: BlockwiseRuntime, index: int) -> None:
        """Make the inputs of block `index` available for all samples."""
        self.close()
        self._block = index
        if index == 0:
            return
        path = self.folder / f"{index}-{_fingerprint(runtime, index)}.rows"
        try:
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                for old in self.folder.glob("*.rows*"):
                    old.unlink()
                partial = path.with_suffix(".rows-partial")
                with open(partial, "wb") as file:
                    for start in range(0, self.samples, _TOGETHER):
                        numbers = np.arange(start, min(start + _TOGETHER, self.samples))
                        values = self.inputs(numbers)
                        for block in range(index):
                            values, _ = runtime.run(block, values)
                        file.write(np.ascontiguousarray(values).data)
                os.replace(partial, path)
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written ({error.strerror}).") from error

    def _rows(self, numbers: NDArray[Any], shape: tuple[int, ...]) -> Array:
        assert self._file is not None
        rows = np.empty((len(numbers), *shape), np.float32)
        for row, number in zip(rows, numbers.tolist(), strict=True):
            os.preadv(self._file, [row], number * row.nbytes)
        return rows

    def close(self) -> None:
        """Close the file of outputs."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _fingerprint(runtime: BlockwiseRuntime, index: int) -> str:
    """Return a name for the parameters of all blocks before `index`."""
    digest = hashlib.blake2b(digest_size=8)
    before = {block.name for block in runtime.blocks[:index]}
    for name in runtime.parameters:
        if name.split(".")[0] in before:
            digest.update(runtime.parameters[name].data)
    return digest.hexdigest()
