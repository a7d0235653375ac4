"""A frozen text encoder on disk: a transformers folder, or its graph beside a tokenizer.

The graph is `model.onnx`, or `onnx/model.onnx` as sentence-transformers publishes it: ids and mask,
(texts, tokens) int64, and maybe types, to hidden values (texts, tokens, width) as its first output
of three axes.
"""

from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.transformers_folder import positions_of, vocabulary_of, whole_number
from edge_train.formats.weight_files import hash_of, read_json

GRAPHS = ("model.onnx", "onnx/model.onnx")
_MOST_WIDTH = 1 << 16
_WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")


@dataclass(frozen=True)
class EncoderFolder:
    """A checked folder.

    Attributes:
      graph: the ONNX file, where there is one.
      weights: whether torch can read its weights.
      width: hidden values of a token.
      vocabulary: rows of the token table.
      positions: tokens of a text at most.
      pad: the id that fills short texts.
    """

    path: Path
    graph: Path | None
    weights: bool
    width: int
    vocabulary: int
    positions: int
    pad: int

    def sha256(self, engine: str) -> str:
        """Return the hash of what an engine reads: the graph, or the weights."""
        if engine == "onnx" and self.graph is not None:
            return hash_of([(self.graph.name, self.graph)])
        return open_classifier(self.path).sha256()

    def model_bytes(self, engine: str) -> int:
        """Return the bytes of what an engine reads."""
        if engine == "onnx" and self.graph is not None:
            beside = self.graph.with_name(f"{self.graph.name}.data")
            more = beside.stat().st_size if beside.is_file() else 0
            return self.graph.stat().st_size + more
        files = open_classifier(self.path).weight_files()
        return sum(file.path.stat().st_size for file in files)


def open_encoder(path: Path) -> EncoderFolder:
    """Return the encoder in a folder.

    Raises:
      ModelError: it is none, holds neither weights nor a graph, or is damaged.
    """
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path}: no config.json; expected the folder of a text encoder, such as all-MiniLM, "
            "or one that `edge-train export MODEL OUT --for retrieve` wrote."
        )
    config = read_json(path / "config.json")
    graph = next((path / name for name in GRAPHS if (path / name).is_file()), None)
    weights = any(path.glob("*.safetensors"))
    if graph is None and not weights:
        raise ModelError(
            f"{path}: neither weights (model.safetensors) nor a graph ({' or '.join(GRAPHS)}) in "
            "it; copy or download the model again."
        )
    try:
        name = next((name for name in _WIDTHS if name in config), _WIDTHS[0])
        width = whole_number(config[name], most=_MOST_WIDTH)
        vocabulary, positions = vocabulary_of(config), positions_of(config)
        pad = whole_number(config.get("pad_token_id") or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path / 'config.json'}: a value is missing or of a wrong type ({error}); copy or "
            "download the model again."
        ) from error
    if weights:
        checked = open_classifier(path)
        positions, pad = checked.positions, checked.pad
    return EncoderFolder(path, graph, weights, width, vocabulary, positions, pad)
