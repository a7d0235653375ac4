"""One layer of a decoder: forward, and exactly backward from its inputs alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.types import Array, Point
from edge_train.protocols import Apply
from edge_train.runtimes.numpy.adapted_layers import AdaptedLayers
from edge_train.runtimes.numpy.attention import Sight, attend, attend_backward
from edge_train.runtimes.numpy.decoder import Decoder
from edge_train.runtimes.numpy.rotary import turn
from edge_train.runtimes.numpy.vector_steps import (
    let_through,
    let_through_backward,
    normalize,
    normalize_backward,
)
from edge_train.runtimes.numpy.workers import Workers

Tables = tuple[Array, Array]
Points = Sequence[Point]


@dataclass(frozen=True, eq=False)
class Places:
    """Where the tokens of a call stand.

    Attributes:
      sequences: which tokens each one is; they follow one another.
      tables: of every kind of rotation of the network, by its number: cosines and sines.
      sights: of every sequence, with the window of a layer.
    """

    sequences: Sequence[slice]
    tables: Callable[[int], Tables]
    sights: Callable[[int, int], Sight]


@dataclass(frozen=True, eq=False)
class Attended:
    """What the backward pass of attention needs; `heads` holds queries, keys and values."""

    plain: Array  # before norms of heads and rotation: queries and keys
    heads: Array
    found: Array
    sums: Array


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """A layer, number `index` of a network."""

    decoder: Decoder
    linear: AdaptedLayers
    index: int

    def forward(self, points: Points, inputs: Array, places: Places) -> Array:
        """Return the outputs, (tokens, width).

        Args:
          points: equal parts of the sequences, one behind the other, are of one each.
        """
        middle, _, _ = self._attention(points, inputs, places)
        return self._with_products(points, middle)

    def cached(self, point: Point, inputs: Array, places: Places, memory: Array) -> Array:
        """Return the outputs for tokens that follow others.

        Args:
          memory: (positions, 2 groups, length) keys and values; those of `inputs` are written
            behind those of the tokens before.
        """
        decoder = self.decoder
        _, heads = self._heads([point], self._norm(decoder.norms.before_attention, inputs), places)
        queries, keys, values = self._parts(heads)
        sight = places.sights(self.index, 0)
        end = sight.before + len(inputs)
        memory[sight.before : end, : decoder.groups] = keys
        memory[sight.before : end, decoder.groups :] = values
        found, _ = attend(
            queries,
            memory[:end, : decoder.groups],
            memory[:end, decoder.groups :],
            sight,
            decoder.score_scale,
            decoder.score_cap,
            self._workers,
        )
        middle = self._after_attention([point], inputs, found)[0]
        return self._with_products([point], middle)

    def backward(
        self,
        point: Point,
        inputs: Array,
        places: Places,
        error: Array,
        apply: Apply,
        *,
        needed: bool,
    ) -> Array | None:
        """Hand over the gradients of the layer's adapters, last layer first.

        Args:
          inputs: what `forward` was given.
          error: at the outputs; it is overwritten.
          needed: whether the error at the inputs is wanted, which is returned then.

        Memory: what lies between the layer's inputs and its outputs, once, and its errors.
        """
        decoder, norms, linear = self.decoder, self.decoder.norms, self.linear
        middle, after, attended = self._attention([point], inputs, places)
        into_gates, gates = self._gates([point], middle)
        through = let_through(decoder.activation, gates, self._workers)
        passed = error
        if norms.after_products is not None:
            product = self._product("mlp.down_proj", [point], through)
            passed = self._norm_backward(norms.after_products, product, error.copy())
        at_through = np.zeros_like(through)
        linear.backward(self._path("mlp.down_proj"), point, through, passed, at_through, apply)
        del through, passed
        let_through_backward(decoder.activation, gates, at_through, self._workers)
        del at_through
        at_norm = np.zeros_like(middle)
        self._side_by_side(decoder.gates, point, into_gates, gates, at_norm, apply)
        del gates, into_gates
        error += self._norm_backward(norms.before_products, middle, at_norm)
        passed = error
        if norms.after_attention is not None:
            assert after is not None
            passed = self._norm_backward(norms.after_attention, after, error.copy())
        del middle, after, at_norm
        flat = attended.found.reshape(len(inputs), -1)
        at_found = np.zeros_like(flat)
        linear.backward(self._path("self_attn.o_proj"), point, flat, passed, at_found, apply)
        del passed, flat
        at_heads = self._heads_backward(attended, places, at_found)
        del attended, at_found
        into = self._norm(norms.before_attention, inputs)
        at_inputs = np.zeros_like(inputs) if needed else None
        self._side_by_side(decoder.projections, point, into, at_heads, at_inputs, apply)
        if at_inputs is None:
            return None
        error += self._norm_backward(norms.before_attention, inputs, at_inputs)
        return error

    def _attention(
        self, points: Points, inputs: Array, places: Places
    ) -> tuple[Array, Array | None, Attended]:
        """Return the sum with what attention adds, that before its norm if it has one."""
        decoder = self.decoder
        normal = self._norm(decoder.norms.before_attention, inputs)
        plain, heads = self._heads(points, normal, places)
        del normal
        queries, keys, values = self._parts(heads)
        found = np.empty(queries.shape, np.float32)
        sums = np.empty(queries.shape[:2], np.float32)
        for number, some in enumerate(places.sequences):
            found[some], sums[some] = attend(
                queries[some],
                keys[some],
                values[some],
                places.sights(self.index, number),
                decoder.score_scale,
                decoder.score_cap,
                self._workers,
            )
        middle, after = self._after_attention(points, inputs, found)
        return middle, after, Attended(plain, heads, found, sums)

    def _with_products(self, points: Points, middle: Array) -> Array:
        """Return what the second half of the layer makes of the sum after attention."""
        _, gates = self._gates(points, middle)
        outputs = self._product(
            "mlp.down_proj", points, let_through(self.decoder.activation, gates, self._workers)
        )
        if self.decoder.norms.after_products is not None:
            outputs = self._norm(self.decoder.norms.after_products, outputs)
        outputs += middle
        return outputs

    def _after_attention(
        self, points: Points, inputs: Array, found: Array
    ) -> tuple[Array, Array | None]:
        added = self._product("self_attn.o_proj", points, found.reshape(len(inputs), -1))
        after = None
        if self.decoder.norms.after_attention is not None:
            after = added
            added = self._norm(self.decoder.norms.after_attention, added)
        added += inputs
        return added, after

    def _heads(self, points: Points, normal: Array, places: Places) -> tuple[Array, Array]:
        """Return queries, keys and values as they are projected, and ready for attention.

        Both are (tokens, heads + 2 groups, length), and the same one without norms of heads.
        """
        decoder = self.decoder
        count = decoder.heads + 2 * decoder.groups
        wide = np.empty((len(normal), count * decoder.head), np.float32)
        self._outputs_side_by_side(decoder.projections, points, normal, wide)
        heads = wide.reshape(len(normal), count, decoder.head)
        plain = heads
        if self._name("self_attn.q_norm") in self.linear.matrices:
            heads = heads.copy()
            for name, some in self._normed():
                heads[:, some] = self._norm(name, plain[:, some])
        turn(heads[:, : decoder.heads + decoder.groups], places.tables(self.index))
        return plain, heads

    def _heads_backward(self, attended: Attended, places: Places, at_found: Array) -> Array:
        """Return the error at the projections, (tokens, outputs side by side)."""
        decoder = self.decoder
        queries, keys, values = self._parts(attended.heads)
        errors = np.empty_like(attended.heads)
        at = self._parts(errors)
        shaped = at_found.reshape(attended.found.shape)
        for number, some in enumerate(places.sequences):
            passed = attend_backward(
                queries[some],
                keys[some],
                values[some],
                places.sights(self.index, number),
                decoder.score_scale,
                decoder.score_cap,
                attended.found[some],
                attended.sums[some],
                shaped[some],
                self._workers,
            )
            for place, values_of in zip(at, passed, strict=True):
                place[some] = values_of
        turn(errors[:, : decoder.heads + decoder.groups], places.tables(self.index), back=True)
        if attended.plain is not attended.heads:
            for name, some in self._normed():
                part = np.ascontiguousarray(errors[:, some])
                errors[:, some] = self._norm_backward(name, attended.plain[:, some], part)
        return errors.reshape(len(errors), -1)

    def _parts(self, heads: Array) -> tuple[Array, Array, Array]:
        """Return views of queries, keys and values."""
        first, second = self.decoder.heads, self.decoder.heads + self.decoder.groups
        return heads[:, :first], heads[:, first:second], heads[:, second:]

    def _normed(self) -> tuple[tuple[str, slice], tuple[str, slice]]:
        first, second = self.decoder.heads, self.decoder.heads + self.decoder.groups
        return ("self_attn.q_norm", slice(first)), ("self_attn.k_norm", slice(first, second))

    def _gates(self, points: Points, middle: Array) -> tuple[Array, Array]:
        """Return the inputs of the gates, and gate and values side by side."""
        normal = self._norm(self.decoder.norms.before_products, middle)
        names = self.decoder.gates
        wide = sum(self.linear.matrices.shape(f"{self._path(name)}.weight")[0] for name in names)
        gates = np.empty((len(normal), wide), np.float32)
        self._outputs_side_by_side(names, points, normal, gates)
        return normal, gates

    def _product(self, name: str, points: Points, inputs: Array) -> Array:
        path = self._path(name)
        rows = self.linear.matrices.shape(f"{path}.weight")[0]
        out = np.empty((len(inputs), rows), np.float32)
        self.linear.outputs(path, points, inputs, out)
        return out

    def _outputs_side_by_side(
        self, names: Sequence[str], points: Points, inputs: Array, out: Array
    ) -> None:
        for path, columns in self._columns(names):
            self.linear.outputs(path, points, inputs, out[:, columns])

    def _side_by_side(
        self,
        names: Sequence[str],
        point: Point,
        inputs: Array,
        errors: Array,
        into: Array | None,
        apply: Apply,
    ) -> None:
        """Go backward through linear layers whose outputs stand side by side, the last first."""
        for path, columns in reversed(self._columns(names)):
            self.linear.backward(path, point, inputs, errors[:, columns], into, apply)

    def _columns(self, names: Sequence[str]) -> list[tuple[str, slice]]:
        found, start = [], 0
        for name in names:
            path = self._path(name)
            stop = start + self.linear.matrices.shape(f"{path}.weight")[0]
            found.append((path, slice(start, stop)))
            start = stop
        return found

    def _norm(self, name: str, values: Array) -> Array:
        return normalize(values, self._weight(name), self.decoder.norm_offset, self.decoder.epsilon)

    def _norm_backward(self, name: str, values: Array, error: Array) -> Array:
        return normalize_backward(
            values, self._weight(name), self.decoder.norm_offset, self.decoder.epsilon, error
        )

    def _weight(self, name: str) -> Array:
        found = self.linear.matrices.vector(self._name(name))
        assert found is not None, "checked when the network was opened"
        return found

    @property
    def _workers(self) -> Workers:
        return self.linear.matrices.workers

    def _path(self, name: str) -> str:
        return f"model.layers.{self.index}.{name}"

    def _name(self, name: str) -> str:
        return f"{self._path(name)}.weight"
