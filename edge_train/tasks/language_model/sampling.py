"""Which token comes next: the settings that people of llama.cpp and Ollama know, in their order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError

_REMEMBERED = 64  # tokens at the end that a penalty holds for, as in llama.cpp


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn from logits.

    A token that stands among the last 64 is made less likely, then the `top_k` most likely ones are
    kept, of these the fewest that have `top_p` of the probability together, of these those with at
    least `min_p` times that of the best. What is left is drawn at the temperature; 0: the best.

    Raises:
      InputError: a number is out of its range.

    Source: llama.cpp, `src/llama-sampler.cpp`, its default chain.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0, 100),
            "top_k": (0, 1 << 31),
            "top_p": (0, 1),
            "min_p": (0, 1),
            "repeat_penalty": (0.01, 100),
        }
        for name, (low, high) in ranges.items():
            if not low <= (value := getattr(self, name)) <= high:  # NaN, too
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} is {value:g}, must be from {low:g} to {high:g}.")

    def choose(self, logits: Array, before: Sequence[int], draw: np.random.Generator) -> int:
        """Return the next token.

        Args:
          logits: (vocabulary,).
          before: the tokens so far.
        """
        found = logits.astype(np.float64)
        if self.repeat_penalty != 1:
            seen = sorted(set(before[-_REMEMBERED:]))
            part = found[seen]
            found[seen] = np.where(part > 0, part / self.repeat_penalty, part * self.repeat_penalty)
        if self.temperature == 0:
            return int(found.argmax())
        order = np.argsort(-found, kind="stable")[: self.top_k or None]
        order = order[: self._kept(_probabilities(found[order]))]
        drawn = draw.choice(len(order), p=_probabilities(found[order], self.temperature))
        return int(order[drawn])

    def _kept(self, probabilities: NDArray[np.float64]) -> int:
        """Return how many of the most likely tokens remain, at least one."""
        together = np.cumsum(probabilities)
        enough = int(np.searchsorted(together, self.top_p * together[-1])) + 1
        likely = int((probabilities >= self.min_p * probabilities[0]).sum())
        return max(1, min(enough, likely, len(probabilities)))


def _probabilities(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # by next to nothing: all but the best become 0
        weights: NDArray[np.float64] = np.exp((logits - logits.max()) / temperature)
    weights /= weights.sum()
    return weights
