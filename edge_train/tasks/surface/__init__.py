"""Task surface: a cloud of points in, the distance to its surface, a mesh and normals out."""

from edge_train.methods.method import GRADIENT, LARGE, MATRICES
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.surface.recipe import SurfaceRecipe
from edge_train.tasks.task import Saving, Task

TASK = Task(
    name="surface",
    says="a surface, open or closed, from one cloud of points: mesh, denser points, normals",
    recipe=SurfaceRecipe,
    job="edge_train.tasks.surface.job:SurfaceJob",
    accepts="edge_train.tasks.surface.accepts:accepts",
    uses={
        "numpy": Use(
            offers=frozenset({GRADIENT, LARGE, MATRICES}),
            libraries=("edge_train.tasks.surface.engine",),
            pace=Pace(start_seconds=0.9, product_seconds=1.5e-4, share=0.5, number_seconds=4e-9),
        ),
    },
    auto="adamw",
    backward=4,  # slopes of the field, of where queries are moved to, and gradients of both
    learned={"field": "start"},
    defaults={
        ("*", "default"): {
            "steps": 4000,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "samples": 1000,
            "evaluate_every": 200,
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
    },
    savings=(
        Saving(
            key="batch_limit",
            values=(
                (None, ""),
                (256, "at most 256 queries pass at once"),
                (64, "at most 64 queries pass at once"),
            ),
            costs="the same numbers",
            title="queries a pass",
        ),
    ),
    sections="edge_train.tasks.surface.report:sections",
    title=lambda facts: f"Surface of {facts.get('data')}",
)
