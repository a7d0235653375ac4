"""Update rules: what becomes of a gradient, a block at a time."""

from edge_train.registry import lazily

HOMES = {
    "Adam": "transforms",
    "Chain": "transforms",
    "LearningRate": "transforms",
    "Momentum": "transforms",
    "WeightDecay": "transforms",
    "Adam8bit": "adam8bit",
    "Apollo": "apollo",
    "LowRank": "low_rank",
}
__getattr__ = lazily(__name__, HOMES)
