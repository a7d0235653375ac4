"""Which engine computes a run of a language model: torch where it is installed, or NumPy alone."""

from edge_train.errors import InputError
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.language_shapes import shapes_in_files
from edge_train.runtimes.numpy.decoder import decoder_of
from edge_train.tasks.device import settle
from edge_train.tasks.language_model import TASK
from edge_train.tasks.language_model.adapting import is_adapting
from edge_train.tasks.language_model.recipe import LanguageModelRecipe


def engine_for(recipe: LanguageModelRecipe, model: LanguageFolder) -> str:
    """Return the engine of a recipe that says what is trained.

    Raises:
      InputError: it lacks a package, or cannot do what is asked for.
      ModelError: it does not compute such a model.
    """
    missing = TASK.use("torch").missing
    wanted = recipe.runtime
    if wanted == "auto":
        wanted = "numpy" if missing and is_adapting(recipe) else "torch"
    TASK.use(wanted)
    if wanted == "torch" and missing:
        raise InputError(
            f"{model.path}: training {_what(recipe)} needs {missing[0]}, which is not installed; "
            f"`pip install edge-train[desk]` brings it{_instead(recipe, model)}."
        )
    if wanted == "numpy":
        _check_numpy(recipe, model)
    return wanted


def device_for(recipe: LanguageModelRecipe, engine: str, model: LanguageFolder) -> tuple[str, str]:
    """Return where an engine computes, `cpu` or `cuda`, and why, where `auto` had a choice.

    Raises:
      InputError: the engine does not compute there, or torch sees no card.
    """
    if engine != "torch" and recipe.device == "cuda":
        raise InputError(
            f"device 'cuda' is not for runtime {engine!r}, which computes on the cpu; leave it "
            "out, or use --runtime torch."
        )
    device = "cpu" if engine != "torch" and recipe.device == "auto" else recipe.device
    weights = sum(file.path.stat().st_size for file in model.files)
    return settle(device, TASK.name, weights)


def dtype_for(recipe: LanguageModelRecipe, engine: str, device: str) -> str:
    """Return what products with weights are made of: `float32` or `bfloat16`.

    Raises:
      InputError: the engine does not multiply what is asked for.
    """
    if recipe.dtype == "float16":
        raise InputError(
            "dtype 'float16' is not for task 'language-model': its products would overflow; use "
            "--dtype bfloat16, or leave it out."
        )
    if recipe.dtype == "bfloat16" and engine == "numpy":
        raise InputError(
            "dtype 'bfloat16' is not for runtime 'numpy', which multiplies float32; leave it out, "
            "or use --runtime torch."
        )
    if recipe.dtype == "auto" and device == "cuda":
        from edge_train.runtimes.torch.card import pick_device, products_type

        return products_type(pick_device(device))
    return "float32" if recipe.dtype == "auto" else recipe.dtype


def _what(recipe: LanguageModelRecipe) -> str:
    return "with --runtime torch" if is_adapting(recipe) else "all weights of a model"


def _instead(recipe: LanguageModelRecipe, model: LanguageFolder) -> str:
    """Return what can be done without torch, where something can."""
    if not model.files:
        return ""
    if is_adapting(recipe):
        return ", and --runtime numpy does without it"
    return ", and `--trainable lora --runtime numpy` does without it"


def _check_numpy(recipe: LanguageModelRecipe, model: LanguageFolder) -> None:
    """Refuse what NumPy does not compute, before anything is read.

    Raises:
      InputError, ModelError: what it is.
    """
    if not is_adapting(recipe):
        raise InputError(
            "runtime 'numpy' trains adapters, and this run trains all weights; use --trainable "
            "lora, or --runtime torch."
        )
    if not model.files:
        raise InputError(
            f"runtime 'numpy' reads weights from files, and {recipe.model} holds none; use "
            "--runtime torch."
        )
    if recipe.dropout:
        raise InputError("dropout is not for runtime 'numpy'; leave it out, or use torch.")
    decoder_of(model.config, model.path)
    if shapes_in_files(model) is None:
        raise InputError(
            f"runtime 'numpy' takes a model whose files hold its blocks and no output layer that "
            f"is tied to the words; those of {recipe.model} do not; use --runtime torch."
        )
