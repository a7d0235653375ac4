"""What a classifier's run writes: its model as transformers reads it, an adapter, a difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge_train.arrays.types import Array, Point
from edge_train.errors import InputError
from edge_train.export.classifier_files import write_classifier
from edge_train.export.difference import DIFFERENCE_FOLDER, check_rank, write_difference
from edge_train.export.result_texts import CONFIG, as_classifier, write_config, write_texts
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.weight_files import read_json
from edge_train.recipe import required
from edge_train.tasks.classify.model import Model, shapes_of
from edge_train.tasks.classify.model_files import MODEL_FOLDER
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.classify.targets import REGRESSION
from edge_train.tasks.classify.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from edge_train.runtimes.torch.classifier import TorchClassifier
    from edge_train.runtimes.torch.lora import TorchLora
    from edge_train.tasks.classify.opening import Classifier

_ADAPTER_FOLDER = "adapter"


def check_difference(recipe: ClassifyRecipe, model: Model) -> None:
    """Refuse a difference where there is nothing to compare with, or one is written anyway.

    Raises:
      InputError: as described.
    """
    if (rank := recipe.difference_rank) is None:
        return
    if not isinstance(model, ClassifierFolder):
        raise InputError(
            f"difference_rank is not for artifact {recipe.model}; name the model folder "
            "that it was made of, or leave it out."
        )
    if recipe.trainable == "lora":
        raise InputError(
            "difference_rank is not for adapters, which are written as they are trained; "
            "leave it out."
        )
    check_rank(rank, shapes_of(model))


def write_model(
    folder: Path,
    recipe: ClassifyRecipe,
    model: Model,
    tokenizer: TextTokenizer,
    labels: Sequence[str] | None,
    runtime: "Classifier",
    weights: Mapping[str, Array],
    best: Point,
) -> dict[str, str]:
    """Write the model that was learned into a run folder; return the names of what is written.

    Args:
      labels: of the outputs; None: the only output is a number.
      weights: of the whole model, adapters merged.
      best: what was learned, of which an adapter is written by itself.

    Raises:
      RunFolderError: it cannot be written.
    """
    config = read_json(model.path / CONFIG)
    names = ("LABEL_0",) if labels is None else labels
    changes = as_classifier(config, names, model.pad, runtime.architecture)
    if labels is None:
        changes["problem_type"] = REGRESSION
    word = tokenizer.backend.id_to_token(model.pad)
    write_texts(model.path, folder / MODEL_FOLDER, changes, word, tokenizer.backend)
    write_classifier(folder / MODEL_FOLDER, weights)
    outputs = {"model": MODEL_FOLDER}
    if recipe.trainable == "lora":
        cast("TorchLora", runtime).save_adapter(folder / _ADAPTER_FOLDER, best)
        write_config(model.path, folder / _ADAPTER_FOLDER, changes)
        outputs["adapter"] = _ADAPTER_FOLDER
    return outputs


def write_own_difference(
    folder: Path,
    recipe: ClassifyRecipe,
    model: Model,
    runtime: "Classifier",
    weights: Mapping[str, Any],
) -> tuple[float, dict[str, str]]:
    """Write what was learned as an adapter of low rank; return its share, and its name.

    Raises:
      RunFolderError: it cannot be written.
    """
    base, trained = cast(ClassifierFolder, model), cast("TorchClassifier", runtime)
    captured = write_difference(
        folder / DIFFERENCE_FOLDER,
        trained.layers(),
        weights,
        trained.stored(base),
        rank=required(recipe.difference_rank),
        task_type="SEQ_CLS",
        base=base.base,
    )
    return captured, {"difference": DIFFERENCE_FOLDER}
