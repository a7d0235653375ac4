"""Task points: clouds of points in, an autoencoder of them out."""

from edge_train.methods.method import FORWARD, GRADIENT, LARGE, MATRICES
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.points.command import SCORE
from edge_train.tasks.points.recipe import PointsRecipe
from edge_train.tasks.task import SMALLER_CALLS, Task

TASK = Task(
    name="points",
    says="an autoencoder of clouds of points: reconstruct, compress, find what is unusual",
    recipe=PointsRecipe,
    job="edge_train.tasks.points.job:PointsJob",
    accepts="edge_train.tasks.points.accepts:accepts",
    uses={
        "numpy": Use(
            offers=frozenset({FORWARD, GRADIENT, LARGE, MATRICES}),
            libraries=("edge_train.tasks.points.engine",),
            pace=Pace(start_seconds=0.9, product_seconds=1.5e-4, share=0.5, number_seconds=4e-9),
        ),
    },
    auto="adamw",
    backward=2,
    learned={"autoencoder": "start"},
    defaults={
        ("*", "default"): {
            "steps": 2000,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "samples": 16,
            "evaluate_every": 100,
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
        ("zo", "default"): {"queries": 8, "sides": 2},
    },
    savings=(SMALLER_CALLS,),
    sections="edge_train.tasks.points.report:sections",
    title=lambda facts: f"Autoencoder of {facts.get('data')}",
    commands=(SCORE,),
)
