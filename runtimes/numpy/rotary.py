"""Positions of tokens, turned into queries and keys: pairs of a head turn by angles (RoPE)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import ModelError

Config = Mapping[str, Any]
_FAST, _SLOW = 32.0, 1.0  # turns between which YaRN goes over from one to the other
_THETA = 10_000.0


@dataclass(frozen=True, eq=False)
class Rotation:
    """How far each pair of a head turns from one position to the next.

    Attributes:
      frequencies: (pairs,) radians a position.
      long: the same for a sequence of more than `before` positions; None: no others.
      before: positions up to which `frequencies` hold.
      factor: of cosine and sine: what YaRN and LongRoPE sharpen attention by.
    """

    frequencies: Array
    long: Array | None = None
    before: int = 0
    factor: float = 1.0

    def tables(self, positions: NDArray[Any]) -> tuple[Array, Array]:
        """Return cosines and sines, (tokens, 1, pairs), for positions (tokens,)."""
        used = self.frequencies
        if self.long is not None and positions.max(initial=0) >= self.before:
            used = self.long
        angles = positions.astype(np.float32)[:, None, None] * used
        factor = np.float32(self.factor)
        return np.cos(angles) * factor, np.sin(angles) * factor


def turn(heads: Array, tables: tuple[Array, Array], *, back: bool = False) -> None:
    """Turn the pairs of heads (tokens, heads, length), in place; the halves of a head are pairs.

    Args:
      back: apply the transpose, which is what errors go through.

    Memory: two halves of what is turned.
    """
    cosines, sines = tables
    pairs = cosines.shape[-1]
    first, second = heads[..., :pairs], heads[..., pairs : 2 * pairs]
    if back:
        sines = -sines
    crossed = first * sines
    first *= cosines
    first -= second * sines
    second *= cosines
    second += crossed


def rotation_of(config: Config, scaling: Config, head: int, base: float) -> Rotation:
    """Return the rotation of a configuration.

    Args:
      config: of the model, for its numbers of positions.
      scaling: how positions are stretched, as transformers writes it; empty for not at all.
      head: numbers of a head.
      base: `rope_theta`.

    Raises:
      ModelError: it is of a kind that is not computed here.
      KeyError, TypeError, ValueError: it lacks a number, or that is none.
    """
    kind = scaling.get("rope_type", scaling.get("type")) or "default"
    if kind not in _KINDS:
        raise ModelError(
            f"this model stretches positions by {kind!r}, and engine 'numpy' has "
            f"{', '.join(_KINDS)}; use --runtime torch."
        )
    share = float(scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)))
    turned = int(head * share)
    exponents = np.arange(0, turned, 2, dtype=np.float64) / turned
    if not float(base) > 0:
        raise ValueError(f"rope_theta is {base}, expected a number above 0")
    return _KINDS[kind](config, scaling, float(base), float(base) ** exponents)


def _narrow(values: NDArray[np.float64]) -> Array:
    return values.astype(np.float32)


def _default(_: Config, __: Config, ___: float, periods: NDArray[np.float64]) -> Rotation:
    return Rotation(_narrow(1 / periods))


def _linear(_: Config, scaling: Config, __: float, periods: NDArray[np.float64]) -> Rotation:
    return Rotation(_narrow(1 / (periods * float(scaling["factor"]))))


def _llama3(_: Config, scaling: Config, __: float, periods: NDArray[np.float64]) -> Rotation:
    """Long waves are stretched by the factor, short ones not at all, those between a little."""
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    before = float(scaling["original_max_position_embeddings"])
    turns = before / (2 * math.pi * periods)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return Rotation(_narrow(((1 - smooth) / float(scaling["factor"]) + smooth) / periods))


def _yarn(config: Config, scaling: Config, base: float, periods: NDArray[np.float64]) -> Rotation:
    """Pairs that turn often keep their pace, those that seldom do are stretched by the factor.

    Source: YaRN (arXiv:2309.00071), as transformers computes it.
    """
    before = float(scaling["original_max_position_embeddings"])
    factor = scaling.get("factor")
    factor = config["max_position_embeddings"] / before if factor is None else float(factor)
    turned = 2 * len(periods)
    edges = [
        turned * math.log(before / (2 * math.pi * turns)) / (2 * math.log(base))
        for turns in (
            float(scaling.get("beta_fast") or _FAST),
            float(scaling.get("beta_slow") or _SLOW),
        )
    ]
    if scaling.get("truncate", True):
        edges = [math.floor(edges[0]), math.ceil(edges[1])]
    first, last = max(edges[0], 0), min(edges[1], turned - 1)
    ramp = np.clip((np.arange(len(periods)) - first) / ((last - first) or 1e-3), 0, 1)
    sharper = scaling.get("attention_factor")
    if sharper is None:
        parts = [scaling.get("mscale"), scaling.get("mscale_all_dim")]
        over, under = parts if all(parts) else (1.0, 0.0)
        sharper = _sharper(factor, over) / _sharper(factor, under)
    return Rotation(_narrow((ramp / factor + 1 - ramp) / periods), factor=float(sharper))


def _sharper(factor: float, part: Any) -> float:
    return 1.0 if factor <= 1 else 0.1 * float(part) * math.log(factor) + 1.0


def _longrope(config: Config, scaling: Config, _: float, periods: NDArray[np.float64]) -> Rotation:
    """Every pair has a factor of its own, another one in sequences of more than `before`."""
    most = float(config["max_position_embeddings"])
    before = scaling.get("original_max_position_embeddings")
    before = int(config.get("original_max_position_embeddings", most) if before is None else before)
    factor = float(scaling.get("factor") or most / before)
    sharper = scaling.get("attention_factor")
    if sharper is None:
        sharper = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(before))
    short, long = (
        _narrow(1 / (np.array(scaling[f"{name}_factor"], np.float64) * periods))
        for name in ("short", "long")
    )
    return Rotation(short, long, before, float(sharper))


_KINDS: Mapping[str, Callable[[Config, Config, float, NDArray[np.float64]], Rotation]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
