"""A language model in one GGUF file, as task language-model takes it."""

from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.gguf.file import SUFFIX, GgufFile
from edge_train.formats.gguf.settings import SETTINGS, configuration_of
from edge_train.formats.gguf.tokenizer import settings_of, with_size
from edge_train.formats.gguf.weights import GgufWeights, check_layers
from edge_train.formats.language_folder import LanguageFolder, Made
from edge_train.formats.transformers_folder import positions_of

_ADAPTER = "adapter"


def is_gguf(path: Path) -> bool:
    """Return whether a path is such a file: by its name, or, as Ollama keeps them, by its start."""
    if not path.is_file():
        return False
    if path.suffix.lower() == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def open_gguf(path: Path) -> LanguageFolder:
    """Return a checked model; its weights become float32 a few rows at a time.

    Raises:
      ModelError: it is damaged, of an architecture or block type that is not read, or an adapter.
    """
    file = GgufFile(path)
    if file.word("general.type") == _ADAPTER:
        raise ModelError(
            f"{path}: is an adapter, which has no model in it; name the GGUF file of its base, and "
            "to go on from what was learned, --from with the run."
        )
    kind = file.word("general.architecture")
    if kind not in SETTINGS:
        raise ModelError(
            f"{path}: its architecture is {kind[:40]!r}, and {', '.join(SETTINGS)} are read "
            "from GGUF; name the folder of the model in safetensors."
        )
    config = configuration_of(file, kind)
    weights = GgufWeights(file, kind, config)
    check_layers(file, kind, config["num_hidden_layers"])
    rows = config["vocab_size"]
    tokenizer, size = with_size(file, rows)
    made = Made(tokenizer, settings_of(file), size)
    file.metadata = {}  # a vocabulary and its merges as Python strings take tens of megabytes
    return LanguageFolder(
        path, config, rows, positions_of(config), (weights,), str(path.resolve()), made
    )
