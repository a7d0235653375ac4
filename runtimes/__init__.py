"""Readers: engines that run forward passes of a model, each named by its module."""

from edge_train.registry import lazily

HOMES = {
    "Engine": "engine",
    "Use": "engine",
    "engines": "engine",
}
__getattr__ = lazily(__name__, HOMES)
