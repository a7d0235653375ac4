"""Task retrieve: one's own documents in, a search over them out."""

from pathlib import PurePath

from edge_train.methods.method import FORWARD, GRADIENT
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.retrieve.command import AUDIT, SEARCH
from edge_train.tasks.retrieve.recipe import RetrieveRecipe
from edge_train.tasks.task import SMALLER_CALLS, Task

_HEAD = ("edge_train.runtimes.numpy.late_interaction",)
TASK = Task(
    name="retrieve",
    says="search by meaning over one's own documents",
    recipe=RetrieveRecipe,
    job="edge_train.tasks.retrieve.job:RetrieveJob",
    title=lambda facts: f"Search over {PurePath(str(facts.get('data'))).name}",
    accepts="edge_train.tasks.retrieve.accepts:accepts",
    # The engine computes the frozen encoder, once; the head is NumPy on either.
    uses={
        "torch": Use(
            offers=frozenset({FORWARD, GRADIENT}),
            libraries=(
                "torch",
                "accelerate",
                "transformers.models.auto.modeling_auto",
                "edge_train.runtimes.torch.encoder",
                *_HEAD,
            ),
            libraries_bytes=385_000_000,
            first_use_bytes=50_000_000,
            pace=Pace(start_seconds=7.2, share=0.7),
        ),
        "onnx": Use(
            offers=frozenset({FORWARD, GRADIENT}),
            libraries=("edge_train.runtimes.onnx.encoder", *_HEAD),
            libraries_bytes=110_000_000,
            first_use_bytes=15_000_000,
            pace=Pace(share=0.7),
        ),
    },
    auto="backprop",
    backward=2,
    # Chosen on half of Cranfield's queries: `edge-train bench retrieve`.
    defaults={
        ("*", "default"): {
            "steps": 100,
            "learning_rate": 3e-3,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "samples": 16,
            "evaluation_samples": 64,
            "evaluate_every": 20,
            "patience": 0,
        },
        ("zo", "default"): {
            "steps": 1000,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "queries": 4,
            "sides": 1,
            "evaluate_every": 100,
        },
    },
    savings=(SMALLER_CALLS,),
    sections="edge_train.tasks.retrieve.report:sections",
    commands=(SEARCH, AUDIT),
)
