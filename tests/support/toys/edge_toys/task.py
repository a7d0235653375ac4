"""A task: the mean of the numbers in a file."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.method import FORWARD, GRADIENT
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import DataKeys, key
from edge_train.runtimes.engine import Use
from edge_train.tasks.task import SMALLER_CALLS, Task


@dataclass(frozen=True, kw_only=True)
class MeanRecipe(DataKeys, ForwardKeys):
    """The mean of the numbers in a file."""

    task: ClassVar[str] = "mean"

    noise: float = key(0.1, help="size of the noise on every sample", low=0, high=10)


def accepts(path):
    return "numbers" if path.suffix == ".mean" else None


TASK = Task(
    name="mean",
    says="the mean of some numbers",
    recipe=MeanRecipe,
    job="edge_toys.job:MeanJob",
    uses={"numpy": Use(offers=frozenset({FORWARD, GRADIENT}))},
    auto="backprop",
    defaults={
        ("*", "default"): {
            "steps": 30,
            "learning_rate": 0.05,
            "schedule": "constant",
            "samples": 4,
            "evaluate_every": 10,
            "patience": 0,
        },
        ("zo", "default"): {"queries": 4, "sides": 1},
    },
    savings=(SMALLER_CALLS,),
    accepts="edge_toys.task:accepts",
)
