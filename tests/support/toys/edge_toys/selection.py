"""A batch selection: the first samples of every batch."""

from edge_train.methods.choosing import Selection
from edge_train.recipe import Key


class First:
    def __init__(self, count):
        self.count = count

    def choose(self, task, runtime, key):
        return {name: values[: self.count] for name, values in task.batch(key).items()}


FIRST = Selection(
    name="first",
    says="the first samples of a batch",
    build=lambda recipe: First(recipe.option("first_count")),
    keys=(Key("first_count", int, "samples that are kept", low=1, high=1000),),
    defaults={"first_count": 8},
)
