"""Task module: somebody's own torch module and loss in, its trained parameters out."""

from edge_train.methods.method import FORWARD, GRADIENT, LARGE, MATRICES
from edge_train.runtimes.engine import Use
from edge_train.tasks.module.recipe import ModuleRecipe
from edge_train.tasks.task import Saving, Task

TASK = Task(
    name="module",
    says="a torch module of yours, by your own loss",
    recipe=ModuleRecipe,
    job="edge_train.tasks.module.job:ModuleJob",
    data="module",
    uses={
        "torch": Use(
            open="edge_train.runtimes.torch.own_module:OwnModule",
            offers=frozenset({FORWARD, GRADIENT, LARGE, MATRICES}),
            libraries=("torch", "edge_train.runtimes.torch.own_module"),
            libraries_bytes=200_000_000,
            first_use_bytes=20_000_000,
        ),
    },
    auto="adamw",
    # A step is one of the user's batches, whatever its size: `samples` counts those.
    defaults={
        ("*", "default"): {
            "steps": 500,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "samples": 1,
            "evaluate_every": 50,
            "patience": 0,
        },
        ("galore", "default"): {"rank": 8, "refresh_every": 200, "scale": 4.0},
        ("q-galore", "default"): {"rank": 8, "refresh_every": 200, "scale": 4.0},
        ("gradnormlorp", "default"): {"rank": 8, "refresh_every": 200, "scale": 4.0},
        ("gradnormlorp8bit", "default"): {"rank": 8, "refresh_every": 200, "scale": 4.0},
        ("fira", "default"): {"rank": 8, "refresh_every": 200, "scale": 4.0},
        ("sumo", "default"): {"rank": 8, "refresh_every": 200, "scale": 1.0},
        ("dct-adamw", "default"): {"rank": 32, "refresh_every": 1, "scale": 1.0},
        ("apollo", "default"): {"rank": 32, "refresh_every": 200, "scale": 12.0},
        ("apollo-mini", "default"): {"rank": 1, "refresh_every": 200, "scale": 32.0},
        ("frugal", "default"): {"rank": 8, "refresh_every": 200, "scale": 0.1},
        ("zo", "default"): {"queries": 4, "sides": 1},
    },
    savings=(
        Saving(
            key="method",
            values=(("adamw", ""), ("zo", "forward passes only")),
            costs="an estimated gradient",
            only_auto=True,
            reasons={"zo": "the exact gradient does not fit under the cap"},
        ),
    ),
    title=lambda facts: f"Training {facts.get('module')}",
)
