"""Logits of the next token of a network of transformers; of tokens before, keys and values stay."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from edge_train.arrays.types import Array
from edge_train.runtimes.torch.card import HOST, on_host

_AT_ONCE = 256  # tokens that are read together; activations of more would be held, too
_SAME = 1e-3  # of the largest logit: rounding is far below, a token that was not read far above


class CachedLogits:
    """Asks a network for the token after a text; texts that begin alike are read once.

    Not every kind can: one with a state that runs along the text (Mamba, RWKV) takes no keys and
    values, or goes on without them as if nothing had been read. Which one this is, is measured on
    the first text: it is read whole, then in parts with its last token exchanged, and taken back.
    Only where the cache counts every token, and the logits agree, are later texts read in parts;
    all others are read whole, every time.

    Memory: keys and values of every token that was read, for every layer.
    """

    def __init__(self, network: Any, device: torch.device = HOST) -> None:
        self._network, self._device = network, device
        self._cache: Any = None
        self._read: list[int] = []
        self._keeps: bool | None = None  # None: not measured yet
        self._most = _fewest_turned_otherwise(network.config)
        named = "logits_to_keep" in inspect.signature(network.forward).parameters
        self._last = {"logits_to_keep": 1} if named else {}

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, (vocabulary,).

        Only while no weight changes: keys and values of earlier ones would be taken for theirs.

        Args:
          ids: at least one.
        """
        with torch.no_grad():
            if self._most is not None and len(ids) > self._most:
                return _numbers(self._whole(ids))
            if self._keeps is None and len(ids) > 1:
                found = self._whole(ids)
                self._keeps = self._agrees(ids, found)
                return _numbers(found)
            return _numbers(self._in_parts(ids) if self._keeps else self._whole(ids))

    def forget(self) -> None:
        """Let go of keys and values: of weights that change from here on, or of memory."""
        self._cache, self._read = None, []

    def _whole(self, ids: Sequence[int]) -> Any:
        given = torch.tensor([ids]).to(self._device)
        return self._network(input_ids=given, use_cache=False, **self._last).logits[0, -1]

    def _in_parts(self, ids: Sequence[int]) -> Any:
        from transformers import DynamicCache

        same = 0
        while same < min(len(ids) - 1, len(self._read)) and ids[same] == self._read[same]:
            same += 1
        if self._cache is None or not same:
            # of no configuration: layers with a window would forget what a shorter text needs
            self._cache, same = DynamicCache(), 0
        elif same < len(self._read):
            self._cache.crop(same - len(self._read))  # so many less
        self._read = list(ids[:same])
        logits: Any = None
        for start in range(same, len(ids), _AT_ONCE):
            some = list(ids[start : start + _AT_ONCE])
            logits = self._network(
                input_ids=torch.tensor([some]).to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                **self._last,
            ).logits
            self._read += some
        return logits[0, -1]

    def _agrees(self, ids: Sequence[int], whole: Any) -> bool:
        """Return whether a text that is read in parts has the logits of reading all of it."""
        other = ids[-1] - 1 if ids[-1] else 1
        try:
            self._in_parts([*ids[:-1], other])
            found = self._in_parts(ids)
            counted = self._cache.get_seq_length()
        except Exception:  # noqa: BLE001 - code of any kind, asked what it was not made for
            self.forget()
            return False
        near = float((found - whole).abs().max()) <= _SAME * float(whole.abs().max())
        if counted != len(ids) or not near:
            self.forget()
            return False
        return True


def _numbers(logits: Any) -> Array:
    return on_host(logits.float())


def _fewest_turned_otherwise(config: Any) -> int | None:
    """Return the tokens above which positions of the whole text turn otherwise; None: they do not.

    LongRoPE has other angles for long texts, for their first tokens too: keys that were kept would
    be those of a short one.
    """
    found = getattr(config, "rope_parameters", None) or {}
    several = [found, *(one for one in found.values() if isinstance(one, Mapping))]
    limits = [
        one["original_max_position_embeddings"]
        for one in several
        if one.get("rope_type") == "longrope" and "original_max_position_embeddings" in one
    ]
    return min(limits, default=None)
