"""An update rule: Lion (arXiv:2302.06675), without its weight decay."""

import numpy as np

from edge_train.methods.method import GRADIENT, Rule


class Lion:
    def init(self, param):
        return {"momentum": np.zeros(param.shape, np.float32)}

    def update(self, update, state, param):
        gradient = np.asarray(update, np.float32)
        moved = np.sign(0.9 * state["momentum"] + 0.1 * gradient)
        state["momentum"] *= np.float32(0.99)
        state["momentum"] += np.float32(0.01) * gradient
        return moved.astype(np.float32)


def build(recipe, after):
    from edge_train.optim.transforms import Chain

    return Chain((Lion(), *after))


LION = Rule(
    name="lion",
    says="signs of a momentum",
    build=build,
    needs=frozenset({GRADIENT}),
    defaults={"learning_rate": 0.001},
)
