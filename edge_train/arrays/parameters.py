"""Trainable blocks by name, in float32 or few bits: arrays that live outside the model."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.codes import INT4, INT8, Code
from edge_train.arrays.factored import Update, tiles
from edge_train.arrays.rounding import AT_ONCE, Noise, largest
from edge_train.arrays.types import Array, Block, Blocks, Rows
from edge_train.errors import NonFinite
from edge_train.rng import Key

_NEAR = 1 << 14  # levels that fit 16 bits with much room


def _pairs(blocks: Blocks) -> Iterable[tuple[str, Block]]:
    return blocks.items() if isinstance(blocks, Mapping) else blocks


class Parameters(Mapping[str, NDArray[np.float32]]):
    """The trainable blocks of a runtime, read by name and changed only by `subtract` and `load`.

    Args:
      blocks: name -> array, or pairs of them, taken one at a time; each is copied to float32. A
        tensor of a file becomes few bits without ever being whole in float32.
    """

    shows_values: ClassVar[bool] = True  # whether a transform sees the numbers of a matrix

    def __init__(self, blocks: Blocks) -> None:
        self._blocks: dict[str, NDArray[np.float32]] = {}
        for name, block in _pairs(blocks):
            self._add(name, block)

    def _add(self, name: str, block: Block) -> None:
        self._blocks[name] = np.array(block, np.float32)

    @classmethod
    def block_bytes(cls, shape: tuple[int, ...]) -> int:
        """Return the bytes that a block of a shape takes."""
        return 4 * math.prod(shape)

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
        for some, part, _ in _parts(name, update):
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


class QuantizedParameters(Parameters):
    """Trainable blocks whose matrices are stored in few bits, as a `Code` says.

    Reading a block makes a float32 copy of it. A change is rounded at random to levels, in float32
    and right on average, so that changes far below one level are kept. The scale of a group with
    headroom changes only when a weight outgrows it or it is four times too large: every new scale
    rounds all weights of the group again. Without headroom it follows the group's largest weight,
    up and down, and each weight is rounded once: a little change of a scale costs as little noise,
    while scales that only grew by a level, 8/7, made those of INT4 1.9 times as large in 400 steps.
    Weights that nothing changed, their scale neither, are not rounded. A group of one sign keeps
    its values.

    No scale mends what levels cost: an update of a share p of a level moves a weight by a whole one
    with the chance p, so that weights walk by levels * sqrt(p (1 - p)) a step.

    Source: Q-GaLore (arXiv:2407.08296) for training INT8 weights by stochastic rounding. We differ:
    all arithmetic in float32, symmetric groups inside one row, scales that stay, keyed draws.
    """

    code: ClassVar[Code]
    shows_values = False

    @classmethod
    def block_bytes(cls, shape: tuple[int, ...]) -> int:
        """Return the bytes of a matrix in few bits, or of another block in float32."""
        return cls.code.nbytes(*shape) if len(shape) == 2 else super().block_bytes(shape)

    def __init__(self, blocks: Blocks) -> None:
        self._order: list[str] = []
        self._nothing: dict[str, NDArray[np.float32]] = {}
        self._codes: dict[str, NDArray[Any]] = {}
        self._scales: dict[str, NDArray[Any]] = {}
        super().__init__(blocks)

    def _add(self, name: str, block: Block) -> None:
        self._order.append(name)
        if len(block.shape) != 2:
            super()._add(name, block)
            return
        rows, width = block.shape
        self._nothing[name] = np.broadcast_to(np.float32(np.nan), (rows, width))
        codes, scales = self._codes[name], self._scales[name] = self.code.empty(rows, width)
        for some in tiles((rows, width)):
            values = self.code.grouped(np.asarray(block[some], np.float32))
            scale = self.code.new_scale(largest(np.abs(values)))
            levels = np.rint(values / scale[..., None].astype(np.float32))
            np.clip(levels, -self.code.most, self.code.most, out=levels)
            self.code.store(_flat(levels), codes[some])
            scales[some] = scale.reshape(scales[some].shape)

    def levels(self, name: str, some: slice) -> tuple[NDArray[np.int8], NDArray[Any]]:
        """Return some rows of a matrix as levels (rows, padded width) and scales (rows, groups)."""
        scales = self._scales[name][some]
        return self.code.levels(self._codes[name][some]), scales.reshape(len(scales), -1)

    def is_quantized(self, name: str) -> bool:
        """Return whether a block is a matrix in few bits."""
        return name in self._codes

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self._codes:
            return super().__getitem__(name)
        out = np.empty(self._nothing[name].shape, np.float32)
        for some in tiles(self._nothing[name].shape):
            out[some] = self.rows(name, some)
        return out

    def for_transform(self, name: str) -> NDArray[np.float32]:
        """Return NaN in the shape of a block: a float32 copy beside its gradient is too much.

        A transform that reads weights then fails loudly instead of working with others, or reads
        some rows at a time (`readable`).
        """
        if name not in self._codes:
            return super().for_transform(name)
        hidden = self._nothing[name].view(_Hidden)
        hidden.stored = StoredRows(self, name)
        return hidden

    def rows(self, name: str, which: slice | NDArray[Any]) -> NDArray[np.float32]:
        if name not in self._codes:
            return super().rows(name, which)
        width = self._nothing[name].shape[1]
        return self.code.values(self._codes[name][which], self._scales[name][which])[:, :width]

    def tiles(self, name: str) -> Iterator[NDArray[np.float32]]:
        if name not in self._codes:
            yield from super().tiles(name)
            return
        for some in tiles(self._nothing[name].shape):
            yield self.rows(name, some)

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def subtract(self, name: str, update: Update, key: Key) -> None:
        if name not in self._codes:
            super().subtract(name, update, key)
            return
        decay = 0.0 if isinstance(update, np.ndarray) else update.decay
        noise = Noise(key, name)
        for some, part, bound in _parts(name, update):
            step = max(AT_ONCE // part.shape[1], 1)
            for start in range(0, len(part), step):
                own = part[start : start + step]
                first = some.start + start
                at = slice(first, first + len(own))
                self._move(name, at, own, bound, decay, noise)

    def _move(
        self,
        name: str,
        at: slice,
        part: NDArray[np.float32],
        bound: float,
        decay: float,
        noise: Noise,
    ) -> None:
        """Subtract a part, of no number larger than `bound`, from some rows."""
        code, codes, scales = self.code, self._codes[name][at], self._scales[name][at]
        grouped = code.grouped(part)
        scale = scales.reshape(len(part), -1, 1).astype(np.float32)
        levels = code.levels(codes).reshape(grouped.shape)
        values = grouped / -scale
        if decay:
            values -= np.float32(decay) * levels
        if code.follows:
            values += levels
            scales[...] = self._followed(values, scale, noise).reshape(scales.shape)
            code.store(_flat(values), codes)
            return
        values += noise.centered(values.shape)
        np.rint(values, out=values)
        near = bound < _NEAR * float(scale.min())
        moved: NDArray[Any] = values.astype(np.int16) if near else values
        moved += levels
        most = largest(np.abs(moved))
        least = code.most // 4
        if most.max() > code.most or most.min() <= least:  # seldom: once more, by another scale
            wrong = (most > code.most) | (most <= least)
            old = scale[..., 0][wrong]
            new = code.new_scale(most[wrong] * old)
            scales.reshape(wrong.shape)[wrong] = new
            again = moved[wrong] * (old / new.astype(np.float32))[:, None]
            again += noise.own(again.shape)
            np.rint(again, out=again)
            moved[wrong] = np.clip(again, -code.most, code.most, out=again)
        code.store(_flat(moved), codes)

    def _followed(self, values: Array, old: Array, noise: Noise) -> NDArray[Any]:
        """Return new scales (rows, groups), and make whole levels of values in old ones, in place.

        A scale is one of the two neighbors of the right one, right on average. What goes beyond the
        last level of the smaller one is that level, or in the larger one as much more as makes up
        for it: the largest value is the last level in both.

        Args:
          values: (rows, groups, group).
          old: their scales, (rows, groups, 1).
        """
        code = self.code
        size = np.abs(values)
        below, above, share = code.near_scales(largest(size) * old[..., 0])
        up = noise.own(share.shape) + np.float32(0.5) < share
        new: NDArray[Any] = np.where(up, above, below)
        wide: Array = new.astype(np.float32)
        ratio: Array = old[..., 0] / wide
        if (ratio != 1).any():
            edge = np.float32(code.most) * below.astype(np.float32) / old[..., 0]
            beyond = np.flatnonzero(size > edge[..., None])
            group = beyond // size.shape[-1]
            values *= ratio[..., None]
            flat, start = values.reshape(-1), (edge * ratio).reshape(-1)[group]
            gain = np.where(up, 1 / np.where(up, share, 1), 0).reshape(-1)[group]
            found = flat[beyond]
            over = np.minimum(np.abs(found), 2 * code.most) - start  # a scale has a largest value
            flat[beyond] = np.copysign(start + over * gain, found)
        values += noise.centered(values.shape)
        np.rint(values, out=values)
        np.clip(values, -code.most, code.most, out=values)
        return new

    def load(self, blocks: Mapping[str, NDArray[Any]]) -> None:
        super().load(blocks)
        for name in self._codes:
            np.copyto(self._codes[name], blocks[name])
            np.copyto(self._scales[name], blocks[f"{name}:scale"])

    def stored(self) -> dict[str, NDArray[Any]]:
        """Return the live arrays: matrices as they are stored, with `<name>:scale` beside."""
        scales = {f"{name}:scale": scale for name, scale in self._scales.items()}
        return super().stored() | self._codes | scales


@dataclass(frozen=True)
class StoredRows:
    """A matrix of which some rows at a time become float32, however it is stored."""

    parameters: Parameters
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.parameters.for_transform(self.name).shape

    def __getitem__(self, rows: slice) -> Array:
        """Return neighboring rows in float32."""
        return self.parameters.rows(self.name, rows)


class _Hidden(np.ndarray[Any, np.dtype[np.float32]]):
    """NaN in the shape of a matrix in few bits, and where its rows are."""

    stored: StoredRows


def readable(param: NDArray[np.float32]) -> Rows:
    """Return what a transform sees of a block as a matrix (rows, columns) to read rows of."""
    return param.stored if isinstance(param, _Hidden) else param.reshape(len(param), -1)


class Int8Parameters(QuantizedParameters):
    """Matrices in INT8 with one scale a row. Bytes: 1 per weight and 4 per row."""

    code = INT8


class Int4Parameters(QuantizedParameters):
    """Matrices in INT4, two weights a byte, one scale for 32. Bytes: 0.5625 per weight."""

    code = INT4


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """Return (rows, groups, group) as (rows, columns)."""
    return values.reshape(len(values), -1)


def _parts(name: str, update: Update) -> Iterator[tuple[slice, Array, float]]:
    """Yield rows of an update and a bound of their size; all of less than two dimensions at once.

    Raises:
      NonFinite: it holds NaN or infinity; of an array, before anything is yielded.
    """
    if not isinstance(update, np.ndarray):
        for some, part in update.parts():
            yield some, part, _bound(name, part)
        return
    bound = _bound(name, update)
    for some in tiles(update.shape) if update.ndim == 2 else [slice(None)]:
        yield some, update[some], bound


def _bound(name: str, part: Array) -> float:
    """Return the largest magnitude.

    Raises:
      NonFinite: there is none.
    """
    bound = max(float(part.max(initial=0)), -float(part.min(initial=0)))
    if not math.isfinite(bound):
        raise NonFinite(f"the update of block {name!r} is not finite")
    return bound
