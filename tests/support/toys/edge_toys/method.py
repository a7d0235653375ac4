"""A method with a key of its own: signs of the gradient, all of one size."""

import numpy as np

from edge_train.methods.method import GRADIENT, Method, Passes
from edge_train.recipe import Key


class Signs:
    def __init__(self, size):
        self.size = size

    def init(self, param):
        return {}

    def update(self, update, state, param):
        return np.sign(np.asarray(update, np.float32)) * np.float32(self.size)


def build(recipe, parts):
    from edge_train.estimators.backprop import Backprop

    return Backprop(), Signs(recipe.option("stride"))


SIGNED = Method(
    name="signed",
    says="signs of the gradient",
    needs=frozenset({GRADIENT}),
    build=build,
    passes=lambda recipe: Passes(recipe.samples or 1, recipe.samples or 1),
    keys=(Key("stride", float, "size of every update", low=1e-6, high=1.0),),
    defaults={"stride": 0.001},
)
