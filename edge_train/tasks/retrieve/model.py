"""The frozen encoder that a recipe names, and what it leaves no choice of."""

from importlib.util import find_spec
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.encoder_folder import EncoderFolder, open_encoder
from edge_train.formats.hub import find_folder
from edge_train.tasks.retrieve.recipe import RetrieveRecipe

FIXED: dict[str, Any] = {"dtype": "float32", "quant": "none", "lean": False}
_NEEDED = ("torch", "transformers", "accelerate")
_LENGTH = 256  # tokens of a passage, unless the recipe says otherwise


def open_model(recipe: RetrieveRecipe) -> EncoderFolder:
    """Return the encoder of a recipe.

    Raises:
      InputError: the recipe names none, or no data.
      ModelError: it cannot be used.
    """
    if recipe.data is None:
        raise InputError(
            "task 'retrieve' needs documents: name a folder of notes or a table with `data` "
            "(--data)."
        )
    if recipe.model in ("", EMBEDDED):
        raise InputError(
            "task 'retrieve' needs a text encoder: name the folder of one, such as "
            "all-MiniLM-L6-v2, with `model` (--model)."
        )
    return open_encoder(find_folder(recipe.model)[0])


def engine_of(recipe: RetrieveRecipe, model: EncoderFolder) -> str:
    """Return the engine that computes the encoder: as asked, else what is there and installed.

    Raises:
      InputError: it cannot compute this model, or is not installed.
    """
    wanted = recipe.runtime
    if wanted == "auto":
        graph_only = model.graph is not None and (not model.weights or not _has_torch())
        wanted = "onnx" if graph_only else "torch"
    if wanted == "onnx" and model.graph is None:
        raise InputError(
            f"runtime 'onnx' needs a graph, and {model.path} has none; write one where torch is "
            f"installed, with `edge-train export {model.path} OUT --for retrieve`, then run "
            "--model OUT."
        )
    if wanted == "torch" and not model.weights:
        raise InputError(
            f"runtime 'torch' needs weights, and {model.path} has a graph alone; use --runtime "
            "onnx."
        )
    if wanted == "torch" and not _has_torch():
        missing = next(name for name in _NEEDED if find_spec(name) is None)
        raise InputError(
            f"{model.path}: its weights need {missing}, which is not installed; `pip install "
            "edge-train[desk]` brings it, or export the model where it is (`edge-train export "
            "MODEL OUT --for retrieve`) and run --model OUT here."
        )
    return wanted


def length_of(recipe: RetrieveRecipe, model: EncoderFolder) -> int:
    """Return the most tokens of a passage.

    Raises:
      InputError: the model has fewer positions.
    """
    if (recipe.length or 0) > model.positions:
        raise InputError(
            f"length is {recipe.length}, but the model has {model.positions} positions; use at "
            f"most {model.positions}."
        )
    return recipe.length or min(_LENGTH, model.positions)


def check_fixed(recipe: RetrieveRecipe) -> None:
    """Refuse values of keys that this task leaves no choice of.

    Raises:
      InputError: as described.
    """
    for name, value in FIXED.items():
        if (wanted := getattr(recipe, name)) not in (value, "auto"):
            raise InputError(
                f"{name} {wanted!r} is not for task 'retrieve', only {value!r}; leave it out."
            )


def _has_torch() -> bool:
    return all(find_spec(name) is not None for name in _NEEDED)
