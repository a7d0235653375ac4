"""What a run of task language-model learned, and the base that it belongs to.

Every command that goes on from a finished run asks here: which adapter or model it is, which base,
and whether that base is still the one that was trained on.
"""

from dataclasses import dataclass
from pathlib import Path

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.formats.adapter import CONFIG_FILE, Adapter, read_adapter
from edge_train.formats.gguf.model import is_gguf, open_gguf
from edge_train.formats.hub import find_folder
from edge_train.formats.language_folder import LanguageFolder, open_language_model
from edge_train.formats.prompt_file import PROMPT_FILE
from edge_train.records.folder import RunFolder
from edge_train.tasks import read_recipe
from edge_train.tasks.language_model.adapting import ADAPTER_FOLDER
from edge_train.tasks.language_model.prompting import KeptPrompt, read_prompt
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

MODEL_FOLDER = "model"  # of a run


@dataclass(frozen=True)
class Learned:
    """What was learned.

    Attributes:
      name: of the run or folder, for people.
      base: as it was named; empty where nobody says it.
      adapter: with its blocks; None where all weights were trained.
      model: the folder of a model whose weights were all trained.
      prompt: that stands in front of every chat, where one was learned.
      folder: of the run, where the vectors of a soft one are.
    """

    name: str
    base: str
    adapter: Adapter | None
    blocks: dict[str, Array]
    model: Path | None = None
    prompt: KeptPrompt | None = None
    folder: Path | None = None


def learned_in(path: Path) -> Learned:
    """Return what a run, or the folder of an adapter, holds.

    Raises:
      InputError: it is neither, or a run of another task.
      ModelError: the adapter is damaged.
      RunFolderError: the run has not learned anything yet.
    """
    if (path / CONFIG_FILE).is_file():
        adapter, blocks = read_adapter(path)
        return Learned(path.resolve().name, adapter.base, adapter, blocks)
    if not RunFolder(path).recipe.is_file():
        raise InputError(
            f"{path}: neither a run folder nor the folder of an adapter ({CONFIG_FILE}); name "
            "what `edge-train run` made."
        )
    RunFolder(path).check_kinds()
    recipe = read_recipe(RunFolder(path).recipe)
    if not isinstance(recipe, LanguageModelRecipe):
        raise InputError(f"{path}: a run of task {recipe.task!r}, expected a language model's.")
    name = path.resolve().name
    if (path / ADAPTER_FOLDER / CONFIG_FILE).is_file():
        adapter, blocks = read_adapter(path / ADAPTER_FOLDER)
        # the whole path, where the recipe may have one from where the run was started
        return Learned(name, adapter.base or recipe.model, adapter, blocks)
    if (path / PROMPT_FILE).is_file():
        kept = read_prompt(path)
        return Learned(name, kept.base or recipe.model, None, {}, None, kept, path)
    if (path / MODEL_FOLDER / "config.json").is_file():
        return Learned(name, recipe.model, None, {}, path / MODEL_FOLDER)
    raise RunFolderError(
        f"{path}: holds no {ADAPTER_FOLDER}/ or {MODEL_FOLDER}/ yet; finish the run first: "
        f"`edge-train run --resume {path}`."
    )


def open_base(name: str, flag: str = "") -> LanguageFolder:
    """Return the model that a name means: a GGUF file, a folder or a hub id.

    Args:
      flag: of the command that it was named with; empty: a run or an adapter names it.

    Raises:
      ModelError: there is none, or it is damaged.
    """
    if is_gguf(path := Path(name).expanduser()):
        return open_gguf(path)
    return open_language_model(*find_folder(name, flag))


def base_of(learned: Learned, named: str | None, flag: str = "--base") -> LanguageFolder:
    """Return the base of what was learned, checked to be the one that was trained on.

    Args:
      named: where the base is now; None: where it was.
      flag: of the command that asks, which says so; empty: it has none.

    Raises:
      InputError: it is not known, or another one.
      ModelError: it cannot be used.
    """
    name_it = f"name it with {flag}" if flag else "put it back where it was"
    if not (name := named or learned.base):
        raise InputError(f"{learned.name}: does not say which model it is of; {name_it}.")
    try:
        base = open_base(name, flag if named else "")
    except ModelError as error:
        if named is not None:
            raise
        raise ModelError(
            f"{learned.name}: the model that it was trained on cannot be opened ({error}) If that "
            f"was moved, {name_it}."
        ) from error
    adapter = learned.adapter
    wanted = adapter.base_sha256 if adapter is not None else ""
    if learned.prompt is not None:
        wanted = learned.prompt.base_sha256
    if wanted and not base.is_known_as(wanted):
        that_one = f"name that model with {flag}" if flag else "put that model back"
        why = ": it has changed since" if named is None else ""
        raise InputError(
            f"{name}: is not the model that {learned.name} was trained on (sha256 "
            f"{base.sha256()[:12]}..., expected {wanted[:12]}...){why}; {that_one}."
        )
    return base
