"""The engine that computes a classifier: of an artifact, of a model folder, or with adapters."""

from typing import TYPE_CHECKING, Any

from edge_train.formats.training_artifact import TrainingArtifact
from edge_train.methods import methods
from edge_train.methods.method import GRADIENT
from edge_train.recipe import required
from edge_train.tasks.classify.model import Model
from edge_train.tasks.classify.recipe import ClassifyRecipe

if TYPE_CHECKING:
    from edge_train.runtimes.onnx.classifier import OrtClassifier
    from edge_train.runtimes.torch.classifier import TorchClassifier

    Classifier = TorchClassifier | OrtClassifier


def open_runtime(model: Model, recipe: ClassifyRecipe) -> "Classifier":
    """Return the opened runtime that a recipe asks for."""
    threads, seed = required(recipe.threads), recipe.seed
    if isinstance(model, TrainingArtifact):
        from edge_train.runtimes.onnx.classifier import OrtClassifier

        gradients = GRADIENT in methods.get(recipe.method).needs
        return OrtClassifier(
            model, threads=threads, lean=recipe.lean, gradients=gradients, seed=seed
        )
    words: dict[str, Any] = {
        "threads": threads,
        "seed": seed,
        "attention": "eager" if recipe.dropout else None,
        "device": recipe.device,
        "dtype": recipe.dtype,
        "cap_bytes": recipe.cap_bytes,
    }
    if recipe.trainable == "lora":
        from edge_train.runtimes.torch.lora import TorchLora

        rank, scale = required(recipe.rank), required(recipe.scale)
        return TorchLora.open_adapted(model, rank=rank, scale=scale, **words)
    from edge_train.runtimes.torch.classifier import TorchClassifier

    return TorchClassifier.open(model, trainable=recipe.trainable, **words)
