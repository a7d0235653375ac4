"""Task images: labeled pictures in, a head on a frozen backbone out."""

from edge_train.methods.method import BLOCKS, FORWARD, GRADIENT
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.images.command import AUDIT, INFER
from edge_train.tasks.images.recipe import ImagesRecipe
from edge_train.tasks.task import SMALLER_CALLS, Task

_OFFERS = frozenset({FORWARD, GRADIENT, BLOCKS})  # of heads, which NumPy computes
TASK = Task(
    name="images",
    says="an image classifier, from labeled pictures on a frozen backbone",
    recipe=ImagesRecipe,
    job="edge_train.tasks.images.job:ImagesJob",
    learned={"classifier": "start"},
    uses={
        "onnx": Use(
            offers=_OFFERS,
            libraries=("edge_train.runtimes.onnx.pictures",),
            libraries_bytes=90_000_000,
            first_use_bytes=15_000_000,
            pace=Pace(start_seconds=1.5, product_seconds=3e-5, share=0.5, number_seconds=1e-8),
        ),
        "torch": Use(
            offers=_OFFERS,
            libraries=(
                "torch",
                "transformers.models.auto.modeling_auto",
                "edge_train.runtimes.torch.pictures",
            ),
            libraries_bytes=385_000_000,
            first_use_bytes=50_000_000,
            pace=Pace(start_seconds=7.2, share=0.5, number_seconds=1e-8),
        ),
    },
    auto="adamw",
    backward=2,
    # Measured with `edge-train bench images`.
    defaults={
        ("*", "default"): {
            "steps": 300,
            "learning_rate": 0.01,
            "weight_decay": 1.0,
            "schedule": "cosine",
            "samples": 32,
            "evaluate_every": 25,
            "patience": 0,
        },
        ("zo", "default"): {
            "steps": 2000,
            "learning_rate": 3e-3,
            "weight_decay": 0.0,
            "queries": 16,
            "sides": 2,
            "evaluate_every": 100,
        },
        ("tpsgd", "default"): {"learning_rate": 0.1},
        ("dfa", "default"): {"learning_rate": 0.1},
        ("local", "default"): {"learning_rate": 0.1},
        ("drtp", "default"): {"learning_rate": 0.02},
    },
    savings=(SMALLER_CALLS,),
    sections="edge_train.tasks.images.report:sections",
    title=lambda facts: f"Image classifier, trained on {facts.get('data')}",
    commands=(INFER, AUDIT),
)
