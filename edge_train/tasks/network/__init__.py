"""Task network: labeled samples in, a small network out."""

from dataclasses import replace

from edge_train.methods.method import BLOCKS, FORWARD, GRADIENT
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.network.recipe import NetworkRecipe
from edge_train.tasks.task import SMALLER_CALLS, Saving, Task

_STEPS_IN_SEQUENCE = 16  # of a rehearsal, so that every block has its turn


def _for_rehearsal(recipe: NetworkRecipe) -> NetworkRecipe:
    steps = _STEPS_IN_SEQUENCE if recipe.mode == "sequential" else recipe.steps
    return replace(recipe, steps=steps, preview_every=0)


def _together(recipe: NetworkRecipe) -> str | None:
    if recipe.next or recipe.backbone:
        return "--next and --backbone are of one machine"
    if recipe.standardization is None:
        return (
            "each device would standardise by its own data; set standardization, the mean and "
            "deviation of each channel or column, such as '72.9 90.0'"
        )
    return None


TASK = Task(
    name="network",
    says="a small network, from tables, arrays or pictures",
    recipe=NetworkRecipe,
    job="edge_train.tasks.network.job:NetworkJob",
    learned={"network": "start", "adapter": "start"},
    accepts="edge_train.tasks.network.accepts:accepts",
    uses={
        "numpy": Use(
            offers=frozenset({FORWARD, GRADIENT, BLOCKS}),
            open="edge_train.runtimes.numpy.network:NumpyNetwork",
            quants=("none", "int8"),
            libraries=("edge_train.runtimes.numpy.network",),
            pace=Pace(start_seconds=0.9, product_seconds=1.5e-4, share=1.0, number_seconds=4e-9),
        ),
    },
    auto="tpsgd",
    backward=2,
    why_auto="the usual one of small networks",
    for_rehearsal=_for_rehearsal,
    # Measured with `edge-train bench tpsgd`.
    defaults={
        ("*", "default"): {
            "steps": 2000,
            "learning_rate": 0.1,
            "schedule": "cosine",
            "samples": 100,
            "evaluate_every": 100,
            "patience": 0,
        },
        ("backprop", "default"): {"learning_rate": 0.5},
        ("adamw", "default"): {"learning_rate": 1e-3},
        ("zo", "default"): {"learning_rate": 3e-3, "queries": 4, "sides": 1},
    },
    savings=(
        SMALLER_CALLS,
        Saving(
            key="quant",
            values=(("none", ""), ("int8", "int8 weights")),
            costs="a little accuracy of weights or moments",
            only_auto=True,
            reasons={"int8": "float weights do not fit under the cap"},
        ),
        Saving(
            key="method",
            values=(
                ("backprop", ""),
                ("local", ""),
                ("tpsgd", ""),
                ("dfa", ""),
                ("drtp", ""),
            ),
            costs="an estimated gradient",
            only_auto=True,
        ),
    ),
    quality={
        ("numpy", "backprop", "none"): ("backprop", "85.3"),
        ("numpy", "backprop", "int8"): ("backprop, int8 weights", "84.2"),
        ("numpy", "tpsgd", "none"): ("tpsgd", "84.0"),
        ("numpy", "tpsgd", "int8"): ("tpsgd, int8 weights", "82.9"),
        ("numpy", "local", "none"): ("local", "85.3"),
        ("numpy", "dfa", "none"): ("dfa", "85.2"),
        ("numpy", "drtp", "none"): ("drtp", "81.7"),
    },
    measured_on="Fashion-MNIST",
    together=_together,
    sections="edge_train.tasks.network.report:sections",
    title=lambda facts: f"{facts.get('network')} on {facts.get('data')}",
)
