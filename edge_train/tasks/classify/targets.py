"""What a text classifier learns of a text: its class, or a number (regression)."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.tasks.classify.model import Model
from edge_train.tasks.classify.objective import confusion
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.scores import macro_f1, matthews, pearson, spearman

CLASSES, REGRESSION = "classes", "regression"


def settled(recipe: ClassifyRecipe, model: Model) -> tuple[ClassifyRecipe, Model]:
    """Return the recipe with its objective, and the model with the outputs that it needs.

    `auto` is regression for a model with one output, or whose configuration says so.

    Raises:
      InputError: the model cannot learn it, or a key is set that it does not read.
    """
    objective = recipe.objective
    if objective == "auto":
        config = model.config if isinstance(model, ClassifierFolder) else {}
        says = config.get("problem_type") == REGRESSION
        objective = REGRESSION if says or len(model.labels) == 1 else CLASSES
    recipe = replace(recipe, objective=objective)
    if objective == CLASSES:
        if len(model.labels) < 2:
            raise InputError(
                f"{recipe.model} has {len(model.labels)} output, and to tell classes apart takes "
                "two; use --objective regression, or a model with more outputs."
            )
        return recipe, model
    if not isinstance(model, ClassifierFolder):
        raise InputError(
            f"artifact {recipe.model} tells classes apart; for regression name the model folder."
        )
    for name, value in (("label_smoothing", 0.0), ("class_weights", None)):
        if getattr(recipe, name) != value:
            raise InputError(f"{name} is for classes, not for regression; leave it out.")
    return recipe, replace(model, labels=model.labels[:1])


def class_scores(labels: NDArray[Any], logits: Array, classes: int) -> dict[str, Any]:
    """Return how well classes are told apart."""
    table = confusion(labels, logits.argmax(axis=1), classes)
    return {
        "accuracy": float(np.trace(table) / len(labels)),
        "macro_f1": macro_f1(table),
        "matthews": matthews(table),
        "confusion": table.tolist(),
    }


def number_scores(numbers: Array, found: Array) -> dict[str, Any]:
    """Return how near numbers are to those of the texts."""
    error = np.square(found.astype(np.float64) - numbers.astype(np.float64)).mean()
    return {
        "pearson": pearson(found, numbers),
        "spearman": spearman(found, numbers),
        "mean_squared_error": float(error),
    }
