"""Trainable blocks by name, float32 or INT8: arrays that live outside the model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import NonFinite
from edge_train.factored import Array, Update, all_finite, tiles
from edge_train.rng import Key
from edge_train.tensor_file import StoredTensor

_LEVELS = 127
_HEADROOM = 1.25  # a row's scale leaves this much room to grow, since a new scale costs accuracy


Block = NDArray[np.floating] | StoredTensor
Blocks = Mapping[str, NDArray[np.floating]] | Iterable[tuple[str, Block]]


def _pairs(blocks: Blocks) -> Iterable[tuple[str, Block]]:
    return blocks.items() if isinstance(blocks, Mapping) else blocks


class Parameters(Mapping[str, NDArray[np.float32]]):
    """The trainable blocks of a runtime, read by name and changed only by `subtract` and `load`.

    Args:
      blocks: name -> array, or pairs of them, taken one at a time; each is copied to float32. A
        tensor of a file becomes INT8 without ever being whole in float32.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks: dict[str, NDArray[np.float32]] = {}
        for name, block in _pairs(blocks):
            self._add(name, block)

    def _add(self, name: str, block: Block) -> None:
        self._blocks[name] = np.array(block, np.float32)

    @classmethod
    def sharing(cls, blocks: Mapping[str, NDArray[np.float32]]) -> "Parameters":
        """Return parameters that live in the given arrays, not in copies of them."""
        parameters = cls({})
        parameters._blocks.update(blocks)
        return parameters

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def for_transform(self, name: str) -> NDArray[np.float32]:
        """Return the block as a transform sees it: live, or (in INT8) its shape only."""
        return self._blocks[name]

    def rows(self, name: str, which: slice | NDArray[Any]) -> NDArray[np.float32]:
        """Return some rows of a matrix; of INT8 ones only these become float32."""
        return self._blocks[name][which]

    def tiles(self, name: str) -> Iterator[NDArray[np.float32]]:
        """Yield a block in parts, in order: as a whole, or (in INT8) some rows at a time."""
        yield self._blocks[name]

    def subtract(self, name: str, update: Update, key: Key) -> None:
        """Subtract `update` from block `name`, in place; a lazy one some rows at a time.

        Args:
          update: with a decay, that share of the block is subtracted too.
          key: of the step; blocks that round draw from it.

        Raises:
          NonFinite: `update` holds NaN or infinity. The block is left as it was, but for rows that
            a lazy update changed before: the loop rolls back.
        """
        block = self._blocks[name]
        for some, part in _parts(name, update):
            if not isinstance(update, np.ndarray) and update.decay:
                part += np.float32(update.decay) * block[some]
            block[some] -= part

    def load(self, blocks: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite every block, in place, with the one of the same name in what `stored` gave."""
        for name, block in self._blocks.items():
            np.copyto(block, blocks[name])

    def stored(self) -> dict[str, NDArray[Any]]:
        """Return every block as it is stored: the live arrays, to be written to a file."""
        return dict(self._blocks)

    def copy(self) -> dict[str, NDArray[Any]]:
        """Return every block as it is stored, in a fresh array."""
        return {name: block.copy() for name, block in self.stored().items()}


class Int8Parameters(Parameters):
    """Trainable blocks whose matrices are stored as INT8 with one scale per row.

    Reading a block makes a float32 copy of it. A change is added in float32 and rounded up with the
    probability of what is cut off, so that changes far below one level are kept on average. The
    scale of a row changes only when a weight outgrows it or it is four times too large: every new
    scale rounds all weights of the row again. Symmetric, so a row of one sign keeps its values.

    Bytes: 1 per weight and 4 per row; vectors stay float32.

    Source: Q-GaLore (arXiv:2407.08296) for training INT8 weights by stochastic rounding. We differ:
    all arithmetic in float32, symmetric rows instead of groups, scales that stay, keyed draws.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._order: list[str] = []
        self._levels: dict[str, NDArray[np.int8]] = {}
        self._scales: dict[str, NDArray[np.float32]] = {}
        super().__init__(blocks)

    def _add(self, name: str, block: Block) -> None:
        self._order.append(name)
        if block.ndim != 2:
            super()._add(name, block)
            return
        self._levels[name] = levels = np.empty(block.shape, np.int8)
        self._scales[name] = scales = np.empty(len(levels), np.float32)
        for some in tiles((len(levels), levels.shape[1])):
            part = block[some]
            scales[some] = _row_scale(np.maximum(part.max(axis=1), -part.min(axis=1)))
            levels[some] = np.rint(part / scales[some, None])

    def levels(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
        """Return the live integers and row scales of a block, None of one in float32."""
        if name not in self._levels:
            return None
        return self._levels[name], self._scales[name]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self._levels:
            return super().__getitem__(name)
        return self._levels[name] * self._scales[name][:, None]

    def for_transform(self, name: str) -> NDArray[np.float32]:
        """Return NaN in the shape of a block: a float32 copy beside its gradient is too much.

        A transform that reads weights then fails loudly instead of working with others.
        """
        if name not in self._levels:
            return super().for_transform(name)
        return np.broadcast_to(np.float32(np.nan), self._levels[name].shape)

    def rows(self, name: str, which: slice | NDArray[Any]) -> NDArray[np.float32]:
        if name not in self._levels:
            return super().rows(name, which)
        return self._levels[name][which] * self._scales[name][which, None]

    def tiles(self, name: str) -> Iterator[NDArray[np.float32]]:
        if name not in self._levels:
            yield from super().tiles(name)
            return
        for some in tiles(self._levels[name].shape):
            yield self.rows(name, some)

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def subtract(self, name: str, update: Update, key: Key) -> None:
        if name not in self._levels:
            super().subtract(name, update, key)
            return
        levels, scales = self._levels[name], self._scales[name]
        kept = 1.0 if isinstance(update, np.ndarray) else 1.0 - update.decay
        draw = key.generator("rounding", name).bit_generator
        for some, part in _parts(name, update):
            values = levels[some] * (np.float32(kept) * scales[some, None])
            values -= part
            largest = np.abs(values).max(axis=1)
            outgrown = (largest > _LEVELS * scales[some]) | (largest * 4 < _LEVELS * scales[some])
            scales[some] = np.where(outgrown, _row_scale(largest), scales[some])
            values /= scales[some, None]
            raw = draw.random_raw(-(-values.size // 4)).view(np.uint16)[: values.size]
            values += (raw.reshape(values.shape) + np.float32(0.5)) * np.float32(1 / 65536)
            np.floor(values, out=values)
            np.clip(values, -_LEVELS, _LEVELS, out=values)
            levels[some] = values

    def load(self, blocks: Mapping[str, NDArray[Any]]) -> None:
        super().load(blocks)
        for name in self._levels:
            np.copyto(self._levels[name], blocks[name])
            np.copyto(self._scales[name], blocks[f"{name}:scale"])

    def stored(self) -> dict[str, NDArray[Any]]:
        """Return the live arrays: matrices in INT8, with `<name>:scale` beside."""
        scales = {f"{name}:scale": scale for name, scale in self._scales.items()}
        return super().stored() | self._levels | scales


def _parts(name: str, update: Update) -> Iterator[tuple[slice, Array]]:
    """Yield an update some rows at a time, an array of less than two dimensions as a whole.

    Raises:
      NonFinite: it holds NaN or infinity; of an array, before anything is yielded.
    """
    if not isinstance(update, np.ndarray):
        parts = update.parts()
    elif not all_finite(update):
        raise NonFinite(f"the update of block {name!r} is not finite")
    elif update.ndim != 2:
        parts = iter([(slice(None), update)])
    else:
        parts = ((some, update[some]) for some in tiles(update.shape))
    for some, part in parts:
        if not all_finite(part):
            raise NonFinite(f"the update of block {name!r} is not finite")
        yield some, part


def _row_scale(largest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the scale of rows whose largest magnitudes are given; never zero."""
    scale: NDArray[np.float32] = np.maximum(largest * (_HEADROOM / _LEVELS), 1e-12)
    return scale.astype(np.float32)
