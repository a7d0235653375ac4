"""The training artifact: a classifier that onnxruntime-training trains; its specification.

A folder. `manifest.json` says what the other files are; nothing else is looked at.

    manifest.json         this table of contents, UTF-8 JSON, keys sorted
    training_model.onnx   texts, parameters, gradient buffers -> loss, gradients in the buffers
    eval_model.onnx       texts, parameters -> loss, losses, logits
    optimizer_model.onnx  AdamW, for ONNX Runtime's own training API (C, C++, Java, C#)
    checkpoint            the parameters, for the same
    weights.safetensors   the parameters, for this program: each can be read alone
    config.json, tokenizer.json, vocab.txt, ...   as the model's author published them

Manifest, version 1. Every key is required; a reader refuses a larger version and ignores unknown
keys of its own version.

    format       "edge-train training artifact"
    version      1
    requires     {"ir": 9, "opset": 18}: what the engine must read
    origin       {"model", "sha256", "edge_train"}: what was exported, its weights, by whom; and
                 "new_heads", where it had none: names of parameters that a run draws by its seed;
                 "text_types": "yes" where the graphs take `types`
    task         "classify"
    trainable    names of the parameters that get a gradient, in the order of the graph
    frozen       names of the graph's other parameters
    labels       what the outputs are called, in their order
    vocabulary, positions, pad    rows of the token table, ids in a text at most, the filling id
    files        path -> {"bytes", "sha256"}

Inputs of both graphs, B texts of L ids: ids (B, L), mask (B, L; 1 where there is a token) and
labels (B,), with text types also types (B, L; 0 or 1, the text of a pair that an id belongs to),
all int64, and every parameter by name, float32. `training_model.onnx` also takes
`<name>_grad.accumulation.buffer` for every trainable parameter, which it writes to, and
`lazy_reset_grad` (1,) bool: true overwrites the buffers, false adds to them. Outputs: loss, the
mean over the batch; losses (B,); logits (B, classes).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.manifest import (
    AGAIN,
    MANIFEST,
    FileEntry,
    impossible_file,
    manifest_bytes,
    missing_key,
    read_manifest,
    refuse_content,
    same_content,
    says_format,
)

FORMAT = "edge-train training artifact"
VERSION = 1
TRAINING, EVALUATION, OPTIMIZER = "training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"
CHECKPOINT, WEIGHTS = "checkpoint", "weights.safetensors"
BUFFER = "_grad.accumulation.buffer"
RESET = "lazy_reset_grad"


@dataclass(frozen=True)
class TrainingManifest:
    """The table of contents; the module docstring says what each key means."""

    requires: Mapping[str, int]
    origin: Mapping[str, str]
    task: str
    trainable: tuple[str, ...]
    frozen: tuple[str, ...]
    labels: tuple[str, ...]
    vocabulary: int
    positions: int
    pad: int
    files: Mapping[str, FileEntry]

    @property
    def new_heads(self) -> tuple[str, ...]:
        """The parameters that the exported model lacked, so that every run draws them anew."""
        return tuple(n for n in self.origin.get("new_heads", "").split() if n in self.trainable)

    @property
    def takes_types(self) -> bool:
        """Whether the graphs take which text of a pair an id belongs to."""
        return self.origin.get("text_types") == "yes"

    def to_bytes(self) -> bytes:
        """Return the JSON of `manifest.json`."""
        return manifest_bytes(self, FORMAT, VERSION)


@dataclass(frozen=True)
class TrainingArtifact:
    """A checked folder; it answers what `ClassifierFolder` answers about a run's model."""

    path: Path
    manifest: TrainingManifest

    @property
    def labels(self) -> tuple[str, ...]:
        """What the outputs are called, in their order."""
        return self.manifest.labels

    @property
    def vocabulary(self) -> int:
        """Rows of the token table."""
        return self.manifest.vocabulary

    @property
    def positions(self) -> int:
        """Ids in a text at most."""
        return self.manifest.positions

    @property
    def pad(self) -> int:
        """The id that fills short texts."""
        return self.manifest.pad

    def sha256(self) -> str:
        """Return the hash of the manifest, which holds those of all other files."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()


def is_training_artifact(path: Path) -> bool:
    """Return whether a folder says it is a training artifact."""
    return says_format(path, FORMAT)


def open_training_artifact(path: Path) -> TrainingArtifact:
    """Return the artifact in a folder after comparing every file with its hash.

    Raises:
      ModelError: it is damaged, edited, incomplete or newer than this program.
    """
    manifest = read_manifest(
        path,
        TrainingManifest,
        FORMAT,
        VERSION,
        "write one with `edge-train export MODEL OUT --for ort-training`",
    )
    complaint = missing_key(manifest, {"requires": ("ir", "opset"), "origin": ("model", "sha256")})
    complaint = complaint or impossible_file(manifest.files, (TRAINING, EVALUATION, WEIGHTS))
    if complaint:
        raise ModelError(f"{path / MANIFEST}: {complaint}. {AGAIN}")
    for name, entry in manifest.files.items():
        if found := same_content(path, name, entry):
            refuse_content(path, name, found, entry)
    return TrainingArtifact(path, manifest)
