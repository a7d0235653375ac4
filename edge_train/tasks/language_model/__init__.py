"""Task language-model: a text in, a language model out."""

from pathlib import PurePath

from edge_train.methods import methods
from edge_train.methods.exact import AdapterKeys
from edge_train.methods.method import (
    CANDIDATES,
    FORWARD,
    GRADIENT,
    LARGE,
    LAST_LAYER,
    MATRICES,
    TOKENS,
)
from edge_train.quant import names_with
from edge_train.recipe import Recipe
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.language_model.command import CHAT, GENERATE, INFER
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.task import SMALLER_CALLS, Saving, Task


def _adds_projections(recipe: Recipe) -> bool:
    return methods.get(recipe.method).projects and recipe.samples != 1


def _trains_adapter(recipe: Recipe) -> bool:
    return isinstance(recipe, AdapterKeys) and recipe.adapts


def _trains_all(recipe: Recipe) -> bool:
    return not _trains_adapter(recipe)


_LITTLE = "a little accuracy of weights or moments"
TASK = Task(
    name="language-model",
    says="a language model, from a text",
    recipe=LanguageModelRecipe,
    job="edge_train.tasks.language_model.two_models:job_of",
    learned={"model": "model", "adapter": "start"},
    of_trainable=(
        *("rank", "alpha", "targets", "rslora"),
        *("prompt_tokens", "prompt_start", "difference_rank"),
    ),
    title=lambda facts: f"Language model, trained on {PurePath(str(facts.get('data'))).name}",
    accepts="edge_train.tasks.language_model.accepts:accepts",
    together=lambda recipe: None,
    sections="edge_train.tasks.language_model.report:sections",
    commands=(GENERATE, CHAT, INFER),
    uses={
        "torch": Use(
            offers=frozenset({FORWARD, GRADIENT, LARGE, MATRICES, CANDIDATES, LAST_LAYER, TOKENS}),
            quants=names_with(lambda quant: quant.trained),
            libraries=("torch", "edge_train.runtimes.torch.language_model"),
            beside=("transformers", "accelerate"),
            libraries_bytes=385_000_000,
            first_use_bytes=60_000_000,
            pace=Pace(
                start_seconds=7.7, product_seconds=4e-4, share=0.85, number_seconds=1e-8, lean=0.7
            ),
        ),
        "numpy": Use(
            offers=frozenset({FORWARD, GRADIENT, LARGE, CANDIDATES, LAST_LAYER, TOKENS}),
            libraries=("edge_train.runtimes.numpy.language_model",),
            libraries_bytes=70_000_000,
            pace=Pace(
                start_seconds=1.0, product_seconds=1.5e-3, share=0.6, number_seconds=4e-9, lean=0.9
            ),
        ),
    },
    auto="backprop",
    why_auto="the exact gradient, recomputing activations, fits",
    # Scales make an update about as long as Adam's would be; a quarter of it for signs.
    defaults={
        ("*", "default"): {
            "steps": 300,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "samples": 8,
            "evaluation_samples": 16,
            "evaluate_every": 50,
            "patience": 0,
        },
        ("galore", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("q-galore", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("gradnormlorp", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("gradnormlorp8bit", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("fira", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("sumo", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("dct-adamw", "default"): {"rank": 64, "refresh_every": 1, "scale": 1.0},
        ("apollo", "default"): {"rank": 64, "refresh_every": 50, "scale": 1.0},
        ("apollo-mini", "default"): {"rank": 1, "refresh_every": 50, "scale": 128.0},
        ("frugal", "default"): {"rank": 64, "refresh_every": 50, "scale": 0.25},
        ("zo", "default"): {
            "steps": 2000,
            "learning_rate": 1e-4,
            "samples": 16,
            "queries": 4,
            "sides": 1,
            "evaluate_every": 100,
        },
        # A pass is of one chat: few steps, each of many passes, and an evaluation seldom.
        ("discrete", "default"): {
            "steps": 40,
            "samples": 32,
            "evaluation_samples": 64,
            "evaluate_every": 10,
        },
        # The paper's: one direction, both sides, absolute radius, plain steps at a constant rate.
        ("zo", "mezo"): {
            "steps": 20_000,
            "learning_rate": 1e-6,
            "schedule": "constant",
            "samples": 16,
            "queries": 1,
            "sides": 2,
            "epsilon": 1e-3,
            "evaluate_every": 500,
        },
    },
    # Of all weights of a model that has learned something already. Rules whose update is as long as
    # Adam's take Adam's rate; a projection leaves out most of it.
    pretrained={
        "*": {"learning_rate": 2e-5},
        "galore": {"learning_rate": 1e-4},
        "q-galore": {"learning_rate": 1e-4},
        "gradnormlorp": {"learning_rate": 1e-4},
        "gradnormlorp8bit": {"learning_rate": 1e-4},
        "dct-adamw": {"learning_rate": 1e-4},
        "zo": {"learning_rate": 1e-6},
    },
    pretrained_warmup=0.1,
    savings=(
        SMALLER_CALLS,
        Saving(
            key="lean",
            values=((False, ""), (True, "freed memory given back at once")),
            costs="time",
            flag="--lean",
            title="lean",
        ),
        Saving(
            key="micro_batch",
            values=((None, ""), (1, "one sequence differentiated at a time")),
            costs="time",
            when=lambda recipe: _trains_adapter(recipe) or _adds_projections(recipe),
            title="micro-batch",
        ),
        Saving(
            key="quant",
            values=(("none", ""), ("int8", "int8 weights")),
            costs=_LITTLE,
            when=_trains_all,  # those beside an adapter stay in their file by now: `lean`
            only_auto=True,
            reasons={"int8": "float weights do not fit under the cap"},
        ),
        Saving(
            key="method",
            values=(
                ("backprop", ""),
                ("adamw8bit", "optimizer state in 8 bits"),
                ("zo", "forward passes only"),
            ),
            costs=_LITTLE,
            when=_trains_adapter,
            only_auto=True,
            reasons={
                "adamw8bit": "AdamW's moments in float32 do not fit under the cap",
                "zo": "the exact gradient does not fit under the cap",
            },
        ),
        Saving(
            key="method",
            when=_trains_all,
            values=(
                ("backprop", ""),
                ("adamw8bit", "optimizer state in 8 bits"),
                ("racs", "optimizer state of a number a row and one a column"),
                ("q-galore", ""),
                ("scale-sgd", "no optimizer state but the output layer's"),
            ),  # docs/benchmarks/lowrank.md has their losses and bytes
            costs=_LITTLE,
            only_auto=True,
            reasons={
                "adamw8bit": "AdamW's moments in float32 do not fit under the cap",
                "racs": "AdamW's moments in 8 bits do not fit under the cap",
                "scale-sgd": "optimizer state does not fit under the cap",
            },
        ),
        Saving(
            key="quant",
            values=(("int8", ""), ("int4", "int4 weights")),
            costs=_LITTLE,
            when=_trains_all,
            only_auto=True,
            reasons={"int4": "int8 weights do not fit under the cap"},
        ),
    ),
)
