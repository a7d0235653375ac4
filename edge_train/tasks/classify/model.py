"""The model that a text classifier is trained from: a folder or an artifact, and what it fixes."""

import math
from collections.abc import Container, Mapping
from importlib.util import find_spec
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.classifier_folder import ClassifierFolder, open_classifier, wants_types
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.hub import find_folder
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.training_artifact import (
    WEIGHTS,
    TrainingArtifact,
    is_training_artifact,
    open_training_artifact,
)
from edge_train.formats.weight_files import read_json
from edge_train.methods import methods
from edge_train.methods.method import GRADIENT, MATRICES
from edge_train.optim.low_rank import is_embedding
from edge_train.recipe import required
from edge_train.tasks.classify import TASK
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.device import settle

Model = ClassifierFolder | TrainingArtifact
Shapes = Mapping[str, tuple[int, ...]]

_HEADS = ("classifier", "score", "pre_classifier", "pooler")


def open_model(recipe: ClassifyRecipe) -> Model:
    """Return the model of a recipe.

    Raises:
      InputError: the recipe names none, or no data.
      ModelError: it cannot be used.
    """
    if recipe.data is None:
        raise InputError(
            "task 'classify' needs labeled texts: name a file or folder with `data` (--data)."
        )
    if recipe.model in ("", EMBEDDED):
        raise InputError(
            "task 'classify' needs a model: name the folder of a transformers sequence classifier "
            "with `model` (--model)."
        )
    path, base = find_folder(recipe.model)
    if is_training_artifact(path):
        return open_training_artifact(path)
    return open_classifier(path, base)


def notes_of(recipe: ClassifyRecipe, model: Model) -> tuple[str, ...]:
    """Return what is said of adapters: what base others will look for."""
    adapters = recipe.trainable == "lora" or recipe.difference_rank is not None
    if not adapters or not isinstance(model, ClassifierFolder):
        return ()
    return (f"the adapter will name its base as {model.base}",)


def check_engine(model: Model, recipe: ClassifyRecipe) -> None:
    """Refuse what cannot be trained here, before anything is read or written.

    Raises:
      InputError: the engine that this kind of model needs is not installed.
    """
    if isinstance(model, TrainingArtifact):
        from edge_train.runtimes.onnx.classifier import check_flavor
        from edge_train.runtimes.onnx.engine import load_engine

        if GRADIENT in methods.get(recipe.method).needs:
            check_flavor()
        else:
            load_engine()
        return
    adapters = ("peft",) if recipe.trainable == "lora" else ()
    for package in ("torch", "transformers", "accelerate", *adapters):
        if find_spec(package) is None:
            raise InputError(
                f"{model.path}: training this needs {package}, which is not installed; "
                "`pip install edge-train[desk]` brings it."
            )


def network_module(model: ClassifierFolder) -> tuple[str, ...]:
    """Return the module of transformers that has the network, where it knows this kind."""
    kind = str(model.config["model_type"]).replace("-", "_")
    name = f"transformers.models.{kind}.modeling_{kind}"
    try:
        return (name,) if find_spec(name) is not None else ()
    except ModuleNotFoundError:
        return ()


def check_trained_rank(recipe: ClassifyRecipe, model: Model) -> None:
    """Refuse a low-rank method that would project nothing.

    Raises:
      InputError: no matrix of a layer is trained, or none is larger than the rank.
    """
    if recipe.rank is None:
        return
    method = methods.get(recipe.method)
    low_rank = MATRICES in method.needs and "rank" in method.reads  # `scale-sgd` has no rank
    if recipe.trainable != "all" and low_rank:
        raise InputError(
            f"method {recipe.method!r} projects the matrices of layers, and trainable "
            f"{recipe.trainable!r} trains none of them; use --method adamw."
        )
    shapes = shapes_of(model)
    projected = is_attention if recipe.trainable == "lora" else _is_layer
    most = max((min(s) - 1 for n, s in shapes.items() if projected(n, s)), default=0)
    if recipe.rank > most:
        raise InputError(
            f"rank is {recipe.rank}, but no layer of {recipe.model} has a matrix with more than "
            f"{most + 1} rows and columns; use a --rank of at most {most}."
        )


def _is_layer(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and not is_embedding(name)


def is_head(name: str) -> bool:
    """Return whether a block stands on top of the encoder, by the usual names."""
    return name.startswith(_HEADS)


def is_attention(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether adapters may stand beside a matrix; peft takes some of these, seldom all."""
    return _is_layer(name, shape) and "att" in name


def shapes_of(model: Model) -> Shapes:
    """Return the shape of every tensor in the files of a model, by its name."""
    if isinstance(model, ClassifierFolder):
        files = model.weight_files()
    else:
        files = (TensorFile(model.path / WEIGHTS),)
    return {name: entry.shape for file in files for name, entry in file.entries.items()}


def operations_of(shapes: Shapes, length: int) -> float:
    """Return the operations of a text's pass: each layer's matrices, and attention's products."""
    inside = [shape for name, shape in shapes.items() if _is_layer(name, shape)]
    queries = [min(s) for n, s in shapes.items() if "q" in n and is_attention(n, s)]
    products = sum(map(math.prod, inside)) + 2 * length * sum(queries)
    return 2.0 * length * products


def trained_shapes(recipe: ClassifyRecipe, model: Model) -> Shapes:
    """Return the shape of every trained block; a head is what the files call by its name."""
    shapes = shapes_of(model)
    frozen: Container[str] = ()
    if isinstance(model, TrainingArtifact):
        frozen = model.manifest.frozen
    elif recipe.trainable != "all":
        frozen = {name for name in shapes if not is_head(name)}
        if recipe.trainable == "norms":
            frozen = {name for name in frozen if len(shapes[name]) > 1}
    trained = {name: shape for name, shape in shapes.items() if name not in frozen}
    if recipe.trainable == "lora":
        rank = required(recipe.rank)
        trained |= {f"{n}.lora": (rank, sum(s)) for n, s in shapes.items() if is_attention(n, s)}
    return trained


def fixed_by(recipe: ClassifyRecipe, model: Model) -> dict[str, Any]:
    """Return what the model and the task leave no choice of.

    Raises:
      InputError: the runtime that was asked for is that of the other kind of model.
    """
    fixed: dict[str, Any] = {"device": "cpu", "dtype": "float32", "quant": "none"}
    if isinstance(model, ClassifierFolder):
        if recipe.runtime in ("onnx", "ort-training"):
            raise InputError(
                f"runtime {recipe.runtime!r} trains exported models; write one with `edge-train "
                f"export {recipe.model} OUT --for ort-training`, then run --model OUT."
            )
        fixed |= {"runtime": "torch", "lean": False}
        if recipe.method != "lora":
            return fixed
        if recipe.trainable not in ("all", "lora"):
            raise InputError(
                f"method 'lora' trains adapters and the head, not {recipe.trainable!r}; leave out "
                "--trainable, or use --method adamw."
            )
        return {**fixed, "trainable": "lora"}
    for name, default in (("label_smoothing", 0.0), ("class_weights", None), ("dropout", False)):
        if getattr(recipe, name) != default:
            raise InputError(
                f"{name} is not for artifact {recipe.model}, whose graph has its loss in it and no "
                "dropout; name the model folder that it was made of, or leave it out."
            )
    if recipe.method == "lora" or recipe.trainable in ("norms", "lora"):
        raise InputError(
            f"artifact {recipe.model} trains what it was exported for, all or head; for adapters "
            "or norms alone name the model folder that it was made of."
        )
    head_only = bool(model.manifest.frozen)
    if recipe.trainable == "head" and not head_only:
        raise InputError(
            f"trainable 'head' was asked for, but artifact {recipe.model} was exported to train "
            "all weights; export it again with --trainable head, or leave it out."
        )
    trainable = "head" if head_only else "all"
    return {**fixed, "runtime": "ort-training", "trainable": trainable}


def place_of(recipe: ClassifyRecipe, model: Model) -> tuple[str, str, str]:
    """Return where a model computes, its type of products, and why, where `auto` had a choice.

    Raises:
      InputError: torch sees no card, or a type that has no room for small gradients.
    """
    if not isinstance(model, ClassifierFolder):
        return "cpu", "float32", ""
    weights = sum(file.path.stat().st_size for file in model.weight_files())
    device, why = settle(recipe.device, TASK.name, weights)
    if device == "cpu":
        return device, "float32", why
    from edge_train.runtimes.torch.card import pick_device, products_type

    dtype = recipe.dtype if recipe.dtype != "auto" else products_type(pick_device(device))
    if dtype == "float16":
        raise InputError(
            "dtype 'float16' is not for task 'classify': its gradients would vanish; use --dtype "
            "bfloat16, or leave it out."
        )
    return device, dtype, why


def takes_types(model: Model) -> bool:
    """Return whether a network wants to know which text of a pair an id belongs to."""
    if isinstance(model, TrainingArtifact):
        return model.manifest.takes_types
    return model.takes_types


def lacks_types(artifact: TrainingArtifact) -> bool:
    """Return whether the model of an artifact tells the texts of a pair apart and its graphs not.

    Raises:
      ModelError: its configuration cannot be read.
    """
    return (
        wants_types(read_json(artifact.path / "config.json")) and not artifact.manifest.takes_types
    )
