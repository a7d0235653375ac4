"""Task classify: labeled texts in, a text classifier out."""

from pathlib import PurePath

from edge_train.methods.method import (
    ADAPTERS,
    CANDIDATES,
    FORWARD,
    GRADIENT,
    LARGE,
    LAST_LAYER,
    MATRICES,
    TOKENS,
)
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.asking import asking_command
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.task import SMALLER_CALLS, Saving, Task, on

_TEXTS = {"evaluation_samples": 256, "patience": 0}


def _together(recipe: ClassifyRecipe) -> str | None:
    if recipe.new_head:
        return "--new-head names its outputs by the data of each device; save a model with its head"
    return None


TASK = Task(
    name="classify",
    says="a text classifier, from labeled texts",
    recipe=ClassifyRecipe,
    job="edge_train.tasks.classify.job:ClassifyTextJob",
    learned={"model": "model"},
    of_trainable=("rank", "scale"),
    title=lambda facts: f"Classifier, trained on {PurePath(str(facts.get('data'))).name}",
    accepts="edge_train.tasks.classify.accepts:accepts",
    uses={
        "torch": Use(
            offers=frozenset(
                {FORWARD, GRADIENT, LARGE, MATRICES, ADAPTERS, CANDIDATES, LAST_LAYER, TOKENS}
            ),
            libraries=(
                "torch",
                "accelerate",
                "transformers.models.auto.modeling_auto",
                "edge_train.runtimes.torch.classifier",
            ),
            libraries_bytes=385_000_000,
            first_use_bytes=50_000_000,
            pace=Pace(start_seconds=7.2, share=0.85, number_seconds=5e-8),
        ),
        "ort-training": Use(
            offers=frozenset({FORWARD, GRADIENT, LARGE, MATRICES, CANDIDATES, TOKENS}),
            libraries=("edge_train.runtimes.onnx.classifier",),
            libraries_bytes=110_000_000,
            first_use_bytes=15_000_000,
            pace=Pace(product_seconds=2e-5, share=1.0, number_seconds=3e-8),
        ),
    },
    auto="backprop",
    # The usual ones for fine-tuning an encoder; not tuned here. Scales of low-rank updates are the
    # papers' for fine-tuning where they name one.
    defaults={
        ("*", "default"): {
            **_TEXTS,
            "steps": 500,
            "learning_rate": 5e-5,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "samples": 32,
            "evaluate_every": 50,
        },
        ("lora", "default"): {"learning_rate": 1e-3},
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
        ("zo", "default"): {
            "steps": 2000,
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "samples": 16,
            "queries": 4,
            "sides": 1,
            "evaluate_every": 100,
        },
        ("discrete", "default"): {"steps": 40, "evaluate_every": 10},
        # The paper's: one direction, both sides, absolute radius, plain steps at a constant rate.
        ("zo", "mezo"): {
            "steps": 20_000,
            "learning_rate": 1e-6,
            "weight_decay": 0.0,
            "schedule": "constant",
            "samples": 16,
            "queries": 1,
            "sides": 2,
            "epsilon": 1e-3,
            "evaluate_every": 500,
        },
    },
    savings=(
        SMALLER_CALLS,
        Saving(
            key="lean",
            values=((False, ""), (True, "an engine that keeps less between calls")),
            costs="time",
            when=on("ort-training"),
            flag="--lean",
            title="lean",
        ),
        Saving(
            key="method",
            values=(
                ("backprop", ""),
                ("adamw8bit", "optimizer state in 8 bits"),
                ("galore", ""),
                ("q-galore", ""),
                ("apollo-mini", ""),
                ("zo", "forward passes only"),
            ),
            costs="a little accuracy of weights or moments",
            only_auto=True,
            reasons={
                "adamw8bit": "AdamW's moments in float32 do not fit under the cap",
                "zo": "the exact gradient does not fit under the cap",
            },
        ),
    ),
    quality={
        ("torch", "adamw", "none"): ("torch", "77.1 %"),
        ("torch", "backprop", "none"): ("torch", "77.1 %"),
        ("ort-training", "adamw", "none"): ("ort-training", "77.1 %"),
        ("ort-training", "backprop", "none"): ("ort-training", "77.1 %"),
    },
    measured_on="SST-2",
    together=_together,
    sections="edge_train.tasks.classify.report:sections",
    commands=(
        asking_command(
            "the class of a text by a trained classifier",
            "edge_train.tasks.classify.answering:infer",
        ),
    ),
)
