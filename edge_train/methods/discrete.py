"""Forward passes only: a search over the tokens of a prompt in front of a frozen model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_train.methods.method import TOKENS, Method, Parts, Passes
from edge_train.recipe import Recipe, key, required

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
    candidates: int | None = key(
        help="tokens that a step of method discrete tries at one position", low=1, high=4096
    )
    proposals: str | None = key(
        help="where they are drawn from: whole words of the tokenizer, or those of them that the "
        "data have",
        choices=("vocabulary", "data"),
    )


def _discrete(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.discrete import CoordinateSearch
    from edge_train.optim.transforms import Chain

    assert isinstance(recipe, PromptKeys)
    assert parts.propose is not None  # a task that offers TOKENS gives it
    return CoordinateSearch(required(recipe.candidates), parts.propose), Chain(())


def _passes(recipe: Recipe) -> Passes:
    assert isinstance(recipe, PromptKeys)
    samples, tried = recipe.samples or 1, required(recipe.candidates)
    few = max(1, samples // 4)
    return Passes(few * (tried + 1) + (samples - few) * (-(-tried // 4) + 1))


METHODS = (
    Method(
        name="discrete",
        says="words of a prompt, tried one at a time by forward passes only; the model is frozen",
        needs=frozenset({TOKENS}),
        build=_discrete,
        passes=_passes,
        reads=("candidates", "proposals"),
        # there is no rate: weights do not change
        defaults={"candidates": 16, "proposals": "vocabulary", "weight_decay": None},
    ),
)
