"""Task personalize: photos in, a word of a Stable Diffusion out."""

from dataclasses import replace

from edge_train.methods.exact import AdapterKeys
from edge_train.methods.method import FORWARD, GRADIENT
from edge_train.quant import names_with, of_artifacts
from edge_train.recipe import Recipe
from edge_train.runtimes.engine import Pace, Use
from edge_train.tasks.personalize.command import GENERATE
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.task import SMALLER_CALLS, Saving, Task, on


def _learns_word_on_torch(recipe: Recipe) -> bool:
    """Return whether forward passes alone could train it: a LoRA takes the exact gradient."""
    return recipe.runtime == "torch" and not (isinstance(recipe, AdapterKeys) and recipe.adapts)


TASK = Task(
    name="personalize",
    says="a new word of a Stable Diffusion, from photos",
    recipe=PersonalizeRecipe,
    job="edge_train.tasks.personalize.job:PersonalizeJob",
    learned={"token": "start", "lora": "start"},
    of_trainable=("rank", "alpha", "targets", "rslora", "train_text_encoder", "vectors"),
    accepts="edge_train.tasks.personalize.accepts:accepts",
    data="photos",
    uses={
        "torch": Use(
            open="edge_train.tasks.personalize.on_torch",
            offers=frozenset({FORWARD, GRADIENT}),
            quants=("none", *names_with(lambda quant: quant.torch_type)),
            libraries=(
                "torch",
                "diffusers.models.unets.unet_2d_condition",
                "diffusers.models.autoencoders.autoencoder_kl",
                "transformers.models.clip.modeling_clip",
                "edge_train.runtimes.torch.diffusion",
            ),
            libraries_bytes=400_000_000,
            first_use_bytes=50_000_000,
            pace=Pace(start_seconds=9.5, share=1.0, moved_seconds=2.8e-9),
        ),
        "onnx": Use(
            open="edge_train.tasks.personalize.on_onnx",
            offers=frozenset({FORWARD}),
            quants=of_artifacts(),
            libraries=("edge_train.runtimes.onnx.diffusion", "edge_train.runtimes.onnx.vae"),
            libraries_bytes=90_000_000,
            first_use_bytes=18_000_000,
            pace=Pace(share=0.55),
        ),
    },
    auto="backprop",
    why_auto="the exact gradient, recomputing activations, fits",
    backward=2,
    for_rehearsal=lambda recipe: replace(recipe, preview_every=0, preview_steps=1),
    # Measured with `edge-train bench personalize`.
    defaults={
        ("*", "default"): {
            "steps": 100,
            "relative_rate": 0.2,
            "schedule": "cosine",
            "samples": 4,
            "evaluation_samples": 16,
            "evaluate_every": 25,
            "patience": 0,
        },
        # Steps have no rate and end soon after gradients are noise: after 160 at the earliest.
        ("backprop", "default"): {"steps": 300, "relative_rate": None},
        ("zo", "default"): {
            "steps": 250,
            "relative_rate": None,  # steps are as long as the answers say
            "schedule": "linear",
            "samples": 1,
            "queries": 4,
            "sides": 1,
            "evaluate_every": 50,
        },
        # The paper's settings: absolute units, constant rate, no slope check (arXiv:2503.14868).
        ("zo", "zoodip"): {
            "steps": 30_000,
            "learning_rate": 5e-3,
            "relative_rate": None,
            "schedule": "constant",
            "samples": 1,
            "queries": 2,
            "sides": 1,
            "epsilon": 1e-3,
            "window": (500, 900),
            "evaluate_every": 500,
        },
    },
    savings=(
        SMALLER_CALLS,
        Saving(
            key="lean",
            values=((False, ""), (True, "weights in their file, freed memory given back")),
            costs="time",
            flag="--lean",
            title="lean",
        ),
        Saving(
            key="quant",
            values=(("none", ""), ("int8", "int8 weights"), ("int4", "")),
            costs="a little accuracy of weights or moments",
            when=on("torch"),
            only_auto=True,
            reasons={"int8": "float weights do not fit under the cap"},
        ),
        Saving(
            key="method",
            values=(("backprop", ""), ("zo", "forward passes only")),
            costs="an estimated gradient",
            when=_learns_word_on_torch,
            only_auto=True,
            reasons={"zo": "the exact gradient does not fit under the cap"},
        ),
        Saving(
            key="previews",
            values=((True, ""), (False, "no pictures")),
            costs="a product less",
            flag="--no-previews",
            title="pictures",
        ),
    ),
    quality={
        ("torch", "backprop", "none"): ("bag, backprop", "98 %"),
        ("torch", "lora", "none"): ("bag, a LoRA", "95 %"),
        ("torch", "zo", "none"): ("torch, float32", "96 %"),
        ("torch", "zo", "int8"): ("bag, zo, int8 weights", "95 %"),
        ("torch", "zo", "int4"): ("bag, zo, int4 weights", "96 %"),
        ("onnx", "zo", "none"): ("onnx, none", "96 %"),
        ("onnx", "zo", "int8"): ("onnx, int8", "95 %"),
        ("onnx", "zo", "int8-fast"): ("onnx, int8-fast", "97 %"),
        ("onnx", "zo", "int4"): ("onnx, int4", "97 %"),
    },
    measured_on="bag",
    as_measured="edge_train.tasks.personalize.measured:as_measured",
    together=lambda recipe: None,
    sections="edge_train.tasks.personalize.report:sections",
    title=lambda facts: f"Learning {facts.get('token')}",
    commands=(GENERATE,),
)
