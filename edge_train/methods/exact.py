"""Methods on exact gradients: what all of them share, and those with Adam's update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from edge_train.methods.method import ADAPTERS, GRADIENT, LARGE, Method, Parts, Passes, Rule
from edge_train.recipe import Recipe, key, required

if TYPE_CHECKING:
    from edge_train.optim.transforms import LearningRate
    from edge_train.protocols import Estimator, Transform

HEAD_APART = 2  # the version of rules from which on heads are not projected
FINAL_RATE = 0.1  # share of the rate at the end of the cosine
# The evaluation of a word is on 16 samples and nearly flat once the word is learned: of iterates
# that differ by less than a quarter of all improvement the later mean is taken, which is less of
# a draw; that it is the better word is not shown.
BEST_MARGIN = 0.25
_STEP = 1.0  # Adam's steps of a word without a rate, in root mean squares of its start


@dataclass(frozen=True, kw_only=True)
class RateKeys(Recipe):
    """The rate as a share of what is trained, for blocks that nobody knows the size of."""

    relative_rate: float | None = key(
        help="learning rate as a share of the start value's root mean square", low=1e-9, high=1e3
    )


@dataclass(frozen=True, kw_only=True)
class NoiseKeys(Recipe):
    """Of runs that can tell when nothing is left to learn."""

    until_noise: bool | None = key(
        help="end soon after exact gradients have become noise, which agree no more with those "
        "before them; default: where neither --steps nor a rate is named",
    )


@dataclass(frozen=True, kw_only=True)
class DecayKeys(Recipe):
    """Decay of weights."""

    weight_decay: float | None = key(
        help="decay of matrices, decoupled from the gradient",
        flags=("--weight-decay", "--adam_weight_decay"),
        low=0,
        high=1e3,
    )


@dataclass(frozen=True, kw_only=True)
class MicroBatchKeys(Recipe):
    """A batch in parts."""

    micro_batch: int | None = key(
        help="micro-batch size: samples per backward pass", low=1, high=4096, group="memory"
    )


@dataclass(frozen=True, kw_only=True)
class ClipKeys(Recipe):
    """A limit on the length of a step's gradient."""

    clip: float | None = key(
        help="largest norm of a step's gradient: a longer one is clipped; takes twice the passes",
        flags=("--clip", "--max_grad_norm"),
        low=1e-9,
        high=1e9,
    )


@dataclass(frozen=True, kw_only=True)
class SmoothingKeys(Recipe):
    """Targets that are not quite certain."""

    label_smoothing: float = key(
        0.0,
        help="label smoothing: share of a target that is spread over all classes; in training only",
        flags=("--label-smoothing", "--label_smoothing_factor"),
        low=0,
        high=0.99,
    )


@dataclass(frozen=True, kw_only=True)
class ClassKeys(Recipe):
    """How much each class counts."""

    class_weights: str | None = key(
        help="weight of each class in the loss: 'balanced', or a number each, such as '1,2.5'",
    )


@dataclass(frozen=True, kw_only=True)
class DropoutKeys(Recipe):
    """Dropout of a model that has it."""

    dropout: bool = key(
        False, help="train with the dropout of the model's configuration; off by default"
    )


@dataclass(frozen=True, kw_only=True)
class AdapterKeys(Recipe):
    """Of low-rank adapters beside frozen weights of a language model."""

    trainable: str = key(
        "auto",
        help="what is trained: all weights, or an adapter; auto: an adapter of a GGUF file, and "
        "where a key of adapters is named; else all weights",
        choices=("auto", "all", "lora", "dora"),
        common=True,
    )
    alpha: float | None = key(
        help="alpha of an adapter, which is scaled by alpha / rank; default: twice the rank",
        flags=("--alpha", "--lora_alpha"),
        low=1e-6,
        high=1e6,
    )
    targets: str | None = key(
        help="layers that get an adapter, by the ends of their names, separated by commas, such as "
        "q_proj,v_proj; default: all-linear, all linear layers but the head",
        flags=("--targets", "--target_modules"),
    )
    rslora: bool = key(
        False,
        help="scale an adapter by alpha / sqrt(rank)",
        flags=("--rslora", "--use_rslora"),
    )

    @property
    def adapts(self) -> bool:
        """Whether a recipe that was filled in trains something beside frozen weights."""
        return self.trainable in ("lora", "dora", "prompt")


def links(recipe: Recipe) -> tuple[Transform, ...]:
    """Return what ends every chain: weight decay, where there is one, and the rate."""
    from edge_train.optim.transforms import WeightDecay

    decay = recipe.weight_decay if isinstance(recipe, DecayKeys) else None
    relative = recipe.relative_rate if isinstance(recipe, RateKeys) else None
    if recipe.learning_rate is not None:
        rate = rate_of(recipe, recipe.learning_rate, FINAL_RATE)
    else:
        rate = replace(rate_of(recipe, required(relative), FINAL_RATE), relative=True)
    return (WeightDecay(decay), rate) if decay else (rate,)


def rate_of(recipe: Recipe, rate: float, final: float) -> LearningRate:
    """Return the schedule of a recipe.

    Args:
      final: share of the rate at the end of a cosine; a line ends at zero.
    """
    from edge_train.optim.transforms import LearningRate

    steps, longer = required(recipe.steps), recipe.spans[1:]
    if recipe.spans:
        steps = recipe.spans[0][1]
    ends = {"cosine": final, "linear": 0.0, "constant": 1.0}
    shape: Literal["cosine", "line"] = "line" if recipe.schedule == "linear" else "cosine"
    end = ends[recipe.schedule or "constant"]
    return LearningRate(rate, steps, end, False, recipe.warmup or 0, shape, longer, recipe.fits)


_READS = ("weight_decay", "micro_batch", "clip", "label_smoothing", "class_weights", "dropout")


def once_there_and_back(recipe: Recipe) -> Passes:
    """Return the passes of an exact gradient; a clipped one is taken twice."""
    samples = recipe.step_samples
    keeps = isinstance(recipe, AdapterKeys) and recipe.adapts  # the gradients of the first pass
    if isinstance(recipe, ClipKeys) and recipe.clip is not None and not keeps:
        samples *= 2
    return Passes(samples, samples)


def of_rule(rule: Rule) -> Method:
    """Return the method that uses exact gradients by a rule."""

    def build(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
        from edge_train.estimators.backprop import Backprop

        transform = rule.build(recipe, links(recipe))
        if rule.head is not None and parts.is_head is not None and not projects_head(recipe):
            from edge_train.optim.low_rank import HeadApart

            transform = HeadApart(parts.is_head, rule.head(recipe, links(recipe)), transform)
        return Backprop(parts.micro_batch), transform

    return Method(
        name=rule.name,
        says=rule.says,
        needs=rule.needs,
        build=build,
        passes=once_there_and_back,
        reads=(*_READS, *rule.reads),
        keys=rule.keys,
        defaults=rule.defaults,
        projects=rule.projects,
        row_sums=rule.row_sums,
    )


def projects_head(recipe: Recipe) -> bool:
    """Return whether the output layer is like any other matrix, as it was in runs of rules 1."""
    return recipe.rules < HEAD_APART or bool(getattr(recipe, "project_head", False))


def adam_rule(_: Recipe, after: tuple[Transform, ...]) -> Transform:
    """Return Adam's rule."""
    from edge_train.optim.transforms import Adam, Chain

    return Chain((Adam(), *after))


def adam8bit_rule(recipe: Recipe, after: tuple[Transform, ...]) -> Transform:
    """Return Adam's rule with moments in 8 bits."""
    from edge_train.optim.adam8bit import Adam8bit
    from edge_train.optim.transforms import Chain

    return Chain((Adam8bit(seed=recipe.seed), *after))


def names_rate(recipe: Recipe) -> bool:
    """Return whether a recipe has a learning rate: those of runs before rates were dropped do."""
    relative = recipe.relative_rate if isinstance(recipe, RateKeys) else None
    return recipe.learning_rate is not None or relative is not None


def ends_by_noise(recipe: Recipe) -> bool:
    """Return whether a run ends soon after its gradients are noise."""
    return isinstance(recipe, NoiseKeys) and bool(recipe.until_noise)


def at_mean(recipe: Recipe, *steps: Transform) -> Transform:
    """Return the chain of a word without a rate: bounded steps that shrink and end at their mean.

    Before them stands what sees when gradients are noise, in a run that ends by it.

    Args:
      steps: links that make a step of a gradient.
    """
    from edge_train.optim.norm_limit import NormLimit
    from edge_train.optim.signal import Signal
    from edge_train.optim.tail_mean import TailMean
    from edge_train.optim.transforms import Chain

    spans = recipe.spans or ((0, required(recipe.steps)),)
    seen = (Signal(),) if ends_by_noise(recipe) else ()
    return Chain((*seen, *steps, NormLimit(), TailMean(spans, recipe.fits)))


def _backprop(recipe: Recipe, parts: Parts) -> tuple[Estimator[Any], Transform]:
    from edge_train.estimators.backprop import Backprop

    update = parts.update or _adam_or_without_rate(recipe)
    return Backprop(parts.micro_batch), update


def _adam_or_without_rate(recipe: Recipe) -> Transform:
    from edge_train.optim.transforms import Adam

    if names_rate(recipe):
        return adam_rule(recipe, links(recipe))
    return at_mean(recipe, Adam(), replace(rate_of(recipe, _STEP, 0.0), relative=True))


RULES = (
    Rule(
        name="adamw",
        says="the exact gradient with AdamW",
        build=adam_rule,
        needs=frozenset({GRADIENT}),
    ),
    Rule(
        name="adamw8bit",
        says="AdamW with moments in 8 bits",
        build=adam8bit_rule,
        needs=frozenset({GRADIENT, LARGE}),
    ),
    Rule(
        name="lora",
        says="AdamW on adapters beside frozen weights",
        build=adam_rule,
        reads=("rank", "scale"),
        needs=frozenset({GRADIENT, ADAPTERS}),
    ),
)
METHODS = (
    Method(
        name="backprop",
        says="the exact gradient: with Adam; of a network with momentum",
        needs=frozenset({GRADIENT}),
        build=_backprop,
        passes=once_there_and_back,
        reads=(*_READS, "momentum"),
        best_margin=lambda recipe: 0.0 if names_rate(recipe) else BEST_MARGIN,
    ),
    *map(of_rule, RULES),
)
