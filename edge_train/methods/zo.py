"""Forward passes only: slopes along random directions, and the presets of two papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edge_train.methods.exact import BEST_MARGIN, at_mean, links, names_rate, rate_of
from edge_train.methods.method import FORWARD, Method, Parts, Passes
from edge_train.recipe import Recipe, key, required

if TYPE_CHECKING:
    from edge_train.protocols import Estimator, Transform

_PULLS = 4  # the version of rules from which on steps without a rate are pulled to the start
# Of the way to the start: by more, items of classes that were never seen are learned less well; by
# none, words of a known class wander (docs/benchmarks/engine-quality.md).
_PULL = 0.02


@dataclass(frozen=True, kw_only=True)
class ForwardKeys(Recipe):
    """Of methods that compare losses at perturbed points."""

    queries: int | None = key(
        help="random directions per step of zo", flags=("--queries", "--n"), low=1, high=1024
    )
    sides: int | None = key(
        help="1: forward differences, 2: central differences, of zo", low=1, high=2
    )
    epsilon: float | None = key(
        help="radius of zo, relative to the root mean square; default: a check chooses it",
        flags=("--epsilon", "--zo_eps"),
        low=1e-9,
        high=1e3,
    )


def _radius(recipe: Recipe) -> float | None:
    assert isinstance(recipe, ForwardKeys)
    return recipe.epsilon


def _passes(recipe: Recipe) -> Passes:
    assert isinstance(recipe, ForwardKeys)
    sides, queries = recipe.sides or 1, recipe.queries or 1
    return Passes(recipe.step_samples * (queries + 1 if sides == 1 else 2 * queries))


def _zo(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.directions import Spanned
    from edge_train.estimators.gauss_newton import GaussNewton
    from edge_train.estimators.zo import ZerothOrder
    from edge_train.optim.transforms import Adam, Chain

    queries, sides = _counts(recipe)
    # without a matrix a block's directions are isotropic
    draw = Spanned(parts.directions, parts.span_steps)
    if not names_rate(recipe):
        return GaussNewton(parts.epsilon, parts.scale, queries, sides, draw), _without_rate(recipe)
    chain = Chain((Adam(), *links(recipe)))
    return ZerothOrder(parts.epsilon, parts.scale, queries, sides, draw), chain


def _without_rate(recipe: Recipe) -> Transform:
    """Return what becomes of steps as long as the model's answers say; it ends at their mean."""
    from edge_train.optim.pull import Pull
    from edge_train.optim.transforms import Momentum

    pulls = (Pull(_PULL),) if recipe.rules >= _PULLS else ()
    return at_mean(recipe, Momentum(), *pulls, rate_of(recipe, 1.0, 0.0))


def _zoodip(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    """Return ZOODiP's: an absolute radius, gradients denoised in the subspace of earlier ones."""
    from edge_train.estimators.zo import ZerothOrder
    from edge_train.optim.denoise_subspace import DenoiseSubspace
    from edge_train.optim.transforms import Adam, Chain, NormCorrection

    queries, _ = _counts(recipe)
    chain = Chain(
        (
            NormCorrection(queries),
            DenoiseSubspace(queries),
            Adam(epsilon=1e-3),
            *links(recipe),
        )
    )
    return ZerothOrder(parts.epsilon, dict.fromkeys(parts.scale, 1.0), queries, 1), chain


def _mezo(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    """Return MeZO's: an absolute radius, plain steps."""
    from edge_train.estimators.zo import ZerothOrder
    from edge_train.optim.transforms import Chain

    queries, sides = _counts(recipe)
    absolute = dict.fromkeys(parts.scale, 1.0)
    return ZerothOrder(parts.epsilon, absolute, queries, sides), Chain(links(recipe))


def _counts(recipe: Recipe) -> tuple[int, Literal[1, 2]]:
    assert isinstance(recipe, ForwardKeys)
    return required(recipe.queries), 2 if recipe.sides == 2 else 1


METHODS = (
    Method(
        name="zo",
        says="slopes along random directions, from forward passes only",
        needs=frozenset({FORWARD}),
        build=_zo,
        passes=_passes,
        reads=(
            "queries",
            "sides",
            "epsilon",
            "directions",
            "weight_decay",
            "micro_batch",
            "label_smoothing",
            "class_weights",
        ),
        presets={"zoodip": _zoodip, "mezo": _mezo},
        perturbs=True,
        radius=_radius,
        best_margin=lambda recipe: 0.0 if names_rate(recipe) else BEST_MARGIN,
    ),
)
