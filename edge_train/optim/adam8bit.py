"""Adam whose moments take one byte each."""

import math
from dataclasses import dataclass, replace

import numpy as np

from edge_train.arrays.factored import Factors, Parts, Streamed, Update, Whole, dense
from edge_train.arrays.rounding import AT_ONCE, Noise
from edge_train.arrays.types import Array, State
from edge_train.optim.moments8bit import BLOCK, blocks, read, write_first, write_second
from edge_train.optim.transforms import Adam
from edge_train.rng import Key

SMALLEST = 4096  # coordinates; smaller blocks of parameters keep float32, as everyone does


@dataclass(frozen=True)
class Adam8bit:
    """Adam with bias correction; moments in 8 bits, one scale for each block of 256.

    Codes are floats of few bits, 6 to 12 % apart (of equal distance near zero), so coordinates of
    any size have about the same relative precision; linear ones would turn small second moments
    into zeros, and the division by their root into an explosion. They are rounded at random, right
    on average: with beta2 = 0.999 a second moment falls by 0.1 % a step at most and would never
    fall if it were rounded to the nearest code. What this costs is noise of about a tenth in each
    coordinate of the update. The draws are a function of seed, block and count, so that they
    are not the same in two blocks, whose errors would add up. A second moment is never rounded down
    to zero.
    Bytes: 2.03 per coordinate. Memory: 32,768 coordinates in float32, a few times.

    Args:
      seed: of the run.
      block: whose moments these are; `rule` fills it in.

    Source: Dettmers et al. (arXiv:2110.02861). We differ in the codes (the leading bits of
    a float32, where theirs are a table that a CPU would have to search) and in the random rounding.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    seed: int = 0
    block: str = ""

    def rule(self, name: str) -> "Adam8bit":
        """Return the rule of a block."""
        return replace(self, block=name)

    def init(self, param: Array) -> State:
        """Return zero moments and a zero count."""
        if param.size < SMALLEST:
            return self._float().init(param)
        blocks = -(-param.size // BLOCK)
        return {
            "first": np.zeros((blocks, BLOCK), np.int8),
            "first_scale": np.zeros((blocks, 1), np.float32),
            "second": np.zeros((blocks, BLOCK), np.uint8),
            "second_scale": np.zeros((blocks, 1), np.float32),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array | Streamed:
        """Return the bias-corrected ratio of the moments, of factors in rows."""
        if "first_scale" not in state:
            return self._float().update(update, state, param)
        state["count"] += 1
        draw = self._noise("moments", state)
        if isinstance(update, Factors | Whole):
            return Streamed(update.shape, self._stream(update, state, draw))
        gradient = dense(update)
        return self._moved(gradient.reshape(-1), 0, state, draw).reshape(gradient.shape)

    def _stream(self, gradient: Factors | Whole, state: State, draw: Noise) -> Parts:
        width = gradient.shape[1]
        for rows, part in gradient.parts(BLOCK // math.gcd(BLOCK, width)):  # whole blocks
            moved = self._moved(part.reshape(-1), rows.start * width, state, draw)
            yield rows, moved.reshape(part.shape)

    def _moved(self, flat: Array, start: int, state: State, draw: Noise) -> Array:
        """Return the ratio for coordinates from `start` on, which begins a block."""
        count = int(state["count"][0])
        first_left, second_left = 1 - self.beta1**count, 1 - self.beta2**count
        result = np.empty(flat.size, np.float32)
        for begin in range(0, flat.size, AT_ONCE):
            own = slice(begin, min(begin + AT_ONCE, flat.size))
            new = blocks(flat[own], 1 - self.beta1)
            at = slice((start + begin) // BLOCK, (start + begin) // BLOCK + len(new))
            first = read(state, "first", at, self.beta1)
            second = read(state, "second", at, self.beta2)
            first += new
            new *= new
            new *= np.float32((1 - self.beta2) / (1 - self.beta1) ** 2)
            second += new
            root = np.sqrt(second, out=new)
            root *= np.float32(first_left / math.sqrt(second_left))
            root += np.float32(first_left * self.epsilon)
            ratio = np.divide(first, root, out=root)
            result[own] = ratio.reshape(-1)[: own.stop - begin]
            write_first(state, at, first, draw)
            write_second(state, at, second, draw)
        return result

    def rotate(self, state: State, rotation: Array) -> None:
        """Express moments of rows in another basis; see `low_rank.Moments`."""
        if "first_scale" not in state:
            self._float().rotate(state, rotation)
            return
        draw = self._noise("rotation", state)
        everything = slice(0, len(state["first"]))
        whole = state["first"].size // len(rotation) * len(rotation)  # what is left is padding
        first, second = read(state, "first", everything), read(state, "second", everything)
        for moments, turn in ((first, rotation), (second, np.square(rotation))):
            flat = moments.reshape(-1)
            flat[:whole] = (flat[:whole].reshape(-1, len(rotation)) @ turn.T).reshape(-1)
        for start in range(0, len(first), AT_ONCE // BLOCK):
            at = slice(start, min(start + AT_ONCE // BLOCK, len(first)))
            write_first(state, at, first[at], draw)
            write_second(state, at, second[at], draw)

    def _noise(self, purpose: str, state: State) -> Noise:
        return Noise(Key(self.seed, int(state["count"][0])), f"{purpose} of {self.block}")

    def _float(self) -> Adam:
        return Adam(self.beta1, self.beta2, self.epsilon)
