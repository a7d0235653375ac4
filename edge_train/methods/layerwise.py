"""Methods that train a network block by block: target-projection SGD and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_train.methods.method import BLOCKS, Method, Parts, Passes
from edge_train.recipe import Recipe, key, required

if TYPE_CHECKING:
    from edge_train.protocols import Estimator, Through, Transform


@dataclass(frozen=True, kw_only=True)
class LayerwiseKeys(Recipe):
    """Of methods that give every block a target of its own."""

    loss: str = key(
        "softmax",
        help="loss of a block against its projected label",
        choices=("softmax", "l2", "sign", "huber", "hinge", "logistic", "cosine"),
    )
    targets: str = key(
        "auto",
        help="how outputs of pictures and sequences are compared with their target",
        choices=("auto", "full", "pooled", "channel", "every", "last"),
    )
    projection: str = key(
        "rademacher",
        help="how the random projection of labels is drawn",
        choices=("rademacher", "gaussian", "uniform", "orthogonal"),
    )
    projection_scale: float | None = key(
        help="root mean square of the projection's entries", low=1e-6, high=1e6
    )
    projection_memory: str = key(
        "int8", help="int8: the projection is kept; key: made again", choices=("key", "int8")
    )
    mode: str = key(
        "online",
        help="online: all blocks in every step; sequential: one after the other",
        choices=("online", "sequential"),
    )
    through_time: bool = key(True, help="exact gradient through time within a recurrent block")


# Sizes of projections, from the sweep of `edge-train bench tpsgd`.
_DRTP_SCALE, _DFA_SCALE = 0.5, 0.1
_WITHIN_REACH = 0.9  # of tanh


def _heads(recipe: Recipe, parts: Parts) -> Mapping[str, Any]:
    from edge_train.estimators.layerwise.relatives import local_heads

    return local_heads(parts.stages, _keys(recipe).targets, parts.classes)


def _passes(recipe: Recipe) -> Passes:
    return Passes(recipe.step_samples)


def _passes_twice(recipe: Recipe) -> Passes:
    return Passes(2 * (recipe.step_samples))


def _tpsgd(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.layerwise.tpsgd import TargetProjection

    keys = _keys(recipe)
    size = _WITHIN_REACH
    if keys.loss == "softmax":
        size = 1.0 if parts.pictures else 3.0  # outputs of a convolution vary together
    signal = TargetProjection(keys.loss, _projections(keys, size), parts.classes)
    return _by_rule(recipe, parts, signal)


def _drtp(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.layerwise.relatives import Drtp

    signal = Drtp(_projections(_keys(recipe), _DRTP_SCALE), parts.classes)
    return _by_rule(recipe, parts, signal)


def _local(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.layerwise.relatives import LocalClassifier

    return _by_rule(recipe, parts, LocalClassifier())


def _dfa(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.layerwise.relatives import DirectFeedback

    keys = _keys(recipe)
    estimator = DirectFeedback(_projections(keys, _DFA_SCALE), keys.targets, _through(keys))
    return estimator, required(parts.update)


def _by_rule(recipe: Recipe, parts: Parts, signal: Any) -> tuple[Estimator[Any], Transform]:
    """Return the estimator that trains layer after layer by a local signal."""
    from edge_train.estimators.layerwise.sequential import Sequential
    from edge_train.estimators.layerwise.tpsgd import LayerByLayer, LocalRule

    keys = _keys(recipe)
    rule = LocalRule(signal, keys.targets, _through(keys), parts.micro_batch)
    if keys.mode == "online":
        return LayerByLayer(rule), required(parts.update)
    cache = required(parts.folder) / "outputs"
    steps, inputs = required(recipe.steps), required(parts.inputs)
    return Sequential(rule, steps, cache, parts.count, inputs), required(parts.update)


def _keeps_length(recipe: Recipe) -> str | None:
    if _keys(recipe).mode == "online":
        return None
    return "mode 'sequential' shares all steps among the blocks, so added ones have no block"


def _keys(recipe: Recipe) -> LayerwiseKeys:
    assert isinstance(recipe, LayerwiseKeys)
    return recipe


def _through(keys: LayerwiseKeys) -> Through:
    return "rows" if keys.through_time else "row"


def _projections(keys: LayerwiseKeys, size: float) -> Any:
    """Return the projections of labels, of this root mean square unless the recipe says more."""
    from edge_train.estimators.layerwise.targets import Projections

    return Projections(
        keys.projection,
        keys.projection_scale or size,
        keys.seed,
        hold=keys.projection_memory == "int8",
    )


_PROJECTION = ("projection", "projection_scale", "projection_memory")
_BLOCKS = frozenset({BLOCKS})
METHODS = (
    Method(
        name="tpsgd",
        says="target projection: every block learns a random projection of the label",
        needs=_BLOCKS,
        build=_tpsgd,
        passes=_passes,
        keeps_length=_keeps_length,
        reads=("loss", *_PROJECTION, "targets", "through_time", "micro_batch", "mode", "momentum"),
        defaults={"learning_rate": 0.5},
    ),
    Method(
        name="local",
        says="every block has a small classifier of its own",
        needs=_BLOCKS,
        build=_local,
        passes=_passes,
        keeps_length=_keeps_length,
        reads=("targets", "through_time", "micro_batch", "mode", "momentum"),
        defaults={"learning_rate": 0.5},
        extra_blocks=_heads,
    ),
    Method(
        name="drtp",
        says="direct random target projection: the label is projected as an error",
        needs=_BLOCKS,
        build=_drtp,
        passes=_passes,
        keeps_length=_keeps_length,
        reads=(*_PROJECTION, "targets", "through_time", "micro_batch", "mode", "momentum"),
        defaults={"learning_rate": 0.02},
    ),
    Method(
        name="dfa",
        says="direct feedback alignment: the error at the top, projected to every block",
        needs=_BLOCKS,
        build=_dfa,
        passes=_passes_twice,
        reads=(*_PROJECTION, "targets", "through_time", "momentum"),
        defaults={"learning_rate": 0.2},
    ),
)
