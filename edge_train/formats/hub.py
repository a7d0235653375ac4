"""From a model's name to its folder: embedded, on disk, or of the hub."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

from edge_train.errors import ModelError
from edge_train.formats.diffusion_folder import (
    _PARTS_XL,
    ModelFolder,
    _read_configs,
    open_model,
)
from edge_train.formats.embedded import EMBEDDED, MODEL_FOLDER
from edge_train.formats.weight_files import choose_weights

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CACHED = re.compile(r"models--([\w.-]+)/snapshots/[^/]+")  # where the hub's cache has a model
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_GGUF = ".gguf"  # what ends so is meant for a file, and not asked for in the hub
_OLD_ID = re.compile(r"[A-Za-z0-9][\w.-]*")  # of the first models, without an owner: gpt2
_TEXTS = ["*.json", "*.txt", "*.jinja", "*.model", "*.spm", "*.tiktoken", "LICENSE*", "NOTICE*"]


def find_model(name: str) -> ModelFolder:
    """Return the checked model that `name` means.

    Args:
      name: `tiny-sd` (embedded), a folder, or a Hugging Face hub id such as
        `stable-diffusion-v1-5/stable-diffusion-v1-5`, downloaded on first use.

    Raises:
      ModelError: no such model, or one that is damaged, unsafe or of an unknown kind.
    """
    if name == EMBEDDED:
        if not MODEL_FOLDER.is_dir():
            raise ModelError(
                f"{EMBEDDED} is not part of this installation ({MODEL_FOLDER} is missing); "
                "install edge-train again, or name the folder of another model."
            )
        return open_model(MODEL_FOLDER)
    path = Path(name).expanduser()
    if path.is_dir():
        return open_model(path)
    if path.suffix in _PICKLES and path.exists():
        raise ModelError(
            f"{name} is a pickle file, which can run any code and is never loaded; take the "
            ".safetensors version of this checkpoint."
        )
    if path.exists():
        raise ModelError(
            f"{name} is a file, expected a folder in the diffusers layout; make one of a "
            f"single-file checkpoint once: `edge-train export {name} DIR --for folder`, then run "
            "--model DIR."
        )
    if _HUB_ID.fullmatch(name) is None:
        raise ModelError(
            f"no model {name!r}: not a folder here and not a hub id (owner/name); name one, or "
            f"{EMBEDDED}, the embedded model."
        )
    return _from_hub(name)


def name_for_others(name: str) -> str:
    """Return what a file that people share calls a model: no path of the machine it was made on.

    A folder is called by its own name, one of the hub's cache by its hub id. One that is called
    like the embedded model is told apart from it.

    >>> name_for_others("stabilityai/sd-turbo"), name_for_others("/usr/../usr/lib")
    ('stabilityai/sd-turbo', 'lib')
    """
    path = Path(name).expanduser()
    if name == EMBEDDED or not path.exists():
        return name
    path = path.resolve()
    cached = _CACHED.fullmatch("/".join(path.parts[-3:]))
    if cached:
        return cached[1].replace("--", "/", 1)
    return f"./{path.name}" if path.name == EMBEDDED else path.name


def find_folder(name: str, flag: str = "--model") -> tuple[Path, str]:
    """Return the folder that a name means, and what others call it: a hub id, or its whole path.

    Args:
      name: a folder, or the hub id of a model of transformers, such as `Qwen/Qwen3-0.6B` or `gpt2`:
        taken from the local cache where that is complete, else downloaded.
      flag: before such a name on the command line; empty: whoever typed the command named none.

    Raises:
      ModelError: it is neither, or cannot be had.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path, str(path.resolve())
    if path.exists():
        raise ModelError(
            f"{name} is a file, expected the folder of a transformers model (config.json, "
            "tokenizer.json, model.safetensors) or a hub id; name the folder that it is in."
        )
    if path.suffix.lower() == _GGUF:
        raise ModelError(
            f"{name}: there is no such file; put it there"
            f"{_or(flag, 'name it where it is', 'FILE')}."
        )
    if _HUB_ID.fullmatch(name) is None and _OLD_ID.fullmatch(name) is None:
        raise ModelError(
            f"no model {name!r}: not a folder here and not a hub id (owner/name); put the folder "
            f"of a transformers model there{_or(flag, 'name one', 'DIR')}."
        )
    hub = _hub(name, flag)
    try:
        cached = Path(hub.snapshot_download(name, local_files_only=True))
        if _is_whole(cached):
            return cached, name
    except (OSError, ValueError, ModelError):
        pass  # not in the cache, or only in part
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=_TEXTS))
        names = {file for file in hub.list_repo_files(name) if "/" not in file}
        weights = choose_weights(names, folder)
        return Path(hub.snapshot_download(name, allow_patterns=[*_TEXTS, *weights])), name
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # the network raises what it likes
        raise _not_to_be_had(name, error, _or(flag, "name a folder that is here", "DIR")) from error


def _or(flag: str, words: str, value: str) -> str:
    """Return what else can be done with a flag; nothing without one."""
    return f", or {words}: {flag} {value}" if flag else ""


def _is_whole(folder: Path) -> bool:
    """Return whether a cached folder has all that a run reads: not only its configuration."""
    names = {path.name for path in folder.iterdir()}
    chosen = choose_weights(names, folder)
    return "config.json" in names and set(chosen) <= names


def _hub(name: str, flag: str = "--model") -> ModuleType:
    """Return the library that downloads a model; a device need not have it."""
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise ModelError(
            f"no folder {name!r} here, and huggingface_hub, which would download it, is not "
            f"installed; pip install huggingface_hub{_or(flag, 'name a folder', 'DIR')}."
        ) from None


def _not_to_be_had(name: str, error: Exception, instead: str) -> ModelError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(
        f"{name}: neither a folder here nor to be had from the hub ({reason}); check the name "
        f"and the network{instead}."
    )


def _from_hub(name: str) -> ModelFolder:
    """Return a hub model, from the local cache where it is complete, else downloaded.

    Texts come first and are checked, then the weights that will be read: never pickles or code.
    """
    hub = _hub(name)
    try:
        return open_model(Path(hub.snapshot_download(name, local_files_only=True)))
    except (OSError, ValueError, ModelError):
        pass  # not in the cache, or only in part
    try:
        texts = ["*.json", "*.txt"]
        folder = Path(hub.snapshot_download(name, allow_patterns=texts))
        components = _PARTS_XL.keys() & _read_configs(folder).keys()
        files = [file.partition("/") for file in hub.list_repo_files(name)]
        weights = [
            f"{component}/{chosen}"
            for component in components
            for chosen in choose_weights(
                {inside for outside, _, inside in files if outside == component}, folder / component
            )
        ]
        return open_model(Path(hub.snapshot_download(name, allow_patterns=texts + weights)))
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # the network raises what it likes
        raise _not_to_be_had(name, error, f", or name {EMBEDDED}, the embedded model") from error
