"""The engine that computes a language model: in torch, with adapters or without, or in NumPy."""

from typing import TYPE_CHECKING, Any

from edge_train.formats.language_folder import LanguageFolder
from edge_train.memory.processor import multiplies_bfloat16
from edge_train.recipe import required
from edge_train.runtimes.torch.calls import SEQUENCES_PER_CALL
from edge_train.tasks.language_model.adapting import ROUNDED_FROM, Start
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

if TYPE_CHECKING:
    from edge_train.runtimes.numpy.language_model import NumpyLanguageModel
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    Engine = AdaptedLanguageModel | NumpyLanguageModel | TorchLanguageModel


def open_engine(
    model: LanguageFolder, recipe: LanguageModelRecipe, start: Start | None
) -> "Engine":
    """Return the opened runtime that a recipe asks for.

    Args:
      start: the adapter that is trained, and its numbers where it is not new; None where all
        weights are.
    """
    if start is not None and recipe.runtime == "numpy":
        return _in_numpy(model, recipe, start)
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    words: dict[str, Any] = {
        "quant": recipe.quant,
        "threads": required(recipe.threads),
        "seed": recipe.seed,
        "lean": recipe.lean,
        "attention": "eager" if recipe.dropout else None,
        "dtype": recipe.dtype,
        "device": recipe.device,
        "cap_bytes": recipe.cap_bytes,
    }
    newer = recipe.rules >= ROUNDED_FROM
    opened: AdaptedLanguageModel | TorchLanguageModel
    if start is not None:
        words |= {"blocks": start.blocks, "by_words": newer}
        opened = AdaptedLanguageModel.open(model, start.adapter, **words)
    else:
        rounded = newer and recipe.dtype == "bfloat16" and multiplies_bfloat16() is True
        opened = TorchLanguageModel.open(model, rounded=rounded, **words)
    if recipe.micro_batch is not None:  # an evaluation holds no more than a gradient
        opened.batch_limit = min(recipe.micro_batch, SEQUENCES_PER_CALL)
    return opened


def _in_numpy(
    model: LanguageFolder, recipe: LanguageModelRecipe, start: Start
) -> "NumpyLanguageModel":
    from edge_train.runtimes.numpy.language_model import NumpyLanguageModel

    opened = NumpyLanguageModel.open(
        model, start.adapter, seed=recipe.seed, blocks=start.blocks, lean=recipe.lean
    )
    opened.use_threads(required(recipe.threads))
    opened.batch_limit = recipe.micro_batch  # an evaluation holds no more than a gradient
    return opened
