"""Gradients: from forward passes, backward passes or local targets."""

from edge_train.registry import lazily

HOMES = {
    "Backprop": "backprop",
    "ZerothOrder": "zo",
}
__getattr__ = lazily(__name__, HOMES)
