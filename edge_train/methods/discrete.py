"""Forward passes only: a search over the tokens of a prompt in front of a frozen model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_train.methods.method import TOKENS, Method, Parts, Passes
from edge_train.recipe import Key, Recipe, key

if TYPE_CHECKING:
    from edge_train.protocols import Estimator, Transform

PROMPT_TOKENS = 8  # unless the recipe says otherwise


@dataclass(frozen=True, kw_only=True)
class PromptKeys(Recipe):
    """Of a prompt that is learned in front of every text, the model frozen."""

    prompt_tokens: int | None = key(
        help=f"tokens of a prompt that is learned; default: those of --prompt-start, else "
        f"{PROMPT_TOKENS}",
        low=1,
        high=4096,
    )
    prompt_start: str | None = key(
        help="words that a learned prompt begins as; default: random words",
    )


_TRIES = Key("tries", int, "tokens that a step tries at one position", default=16, low=1, high=4096)
_WORDS = Key(
    "words",
    str,
    "where they are drawn from: whole words of the tokenizer, or those of them that the data have",
    default="vocabulary",
    choices=("vocabulary", "data"),
)


def _discrete(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.discrete import CoordinateSearch
    from edge_train.optim.transforms import Chain

    assert parts.propose is not None  # a task that offers TOKENS gives it
    return CoordinateSearch(recipe.options["tries"], parts.propose), Chain(())


def _passes(recipe: Recipe) -> Passes:
    samples, tried = recipe.step_samples, int(recipe.options.get("tries", _TRIES.default))
    few = max(1, samples // 4)
    return Passes(few * (tried + 1) + (samples - few) * (-(-tried // 4) + 1))


METHODS = (
    Method(
        name="discrete",
        says="words of a prompt, tried one at a time by forward passes only; the model is frozen",
        needs=frozenset({TOKENS}),
        build=_discrete,
        passes=_passes,
        keys=(_TRIES, _WORDS),
        # there is no rate: weights do not change
        defaults={"weight_decay": None},
    ),
)
