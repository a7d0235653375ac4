"""The artifact: a model on disk that an inference engine trains without torch; its specification.

An artifact is a folder. `manifest.json` says what the others are; nothing else is looked at.

    manifest.json             this table of contents, UTF-8 JSON, keys sorted
    step.onnx, step.weights   prompts -> text encoders -> denoiser -> loss of every sample
    vae_encoder.onnx, .weights    pictures -> mean and deviation of their latents
    vae_decoder.onnx, .weights    latents -> pictures
    embeddings.safetensors    the token tables, (vocabulary, width), one tensor per text encoder
    tokenizer/, tokenizer_2/  as the model's author published them

Manifest, version 1. Every key is required; a reader refuses a larger version and ignores unknown
keys of its own version.

    format           "edge-train artifact"
    version          1
    requires         {"ir": 10, "opset": 18}: what the engine must read
    origin           {"model", "sha256", "edge_train"}: what was exported, its weights, by whom
    family           "sd1", "sd2" or "sdxl"
    quant            "none", "int8", "int8-fast" or "int4"
    engine           session options that the numbers depend on; a runtime sets every one
    resolution, latent_channels, latent_scale, prompt_tokens, text_widths
                     pixels a side, channels of a latent, pixels per latent cell, ids of a padded
                     prompt, width of each text encoder's vectors
    scaling_factor, shift_factor
                     a denoiser's latent is (the VAE's - shift_factor) * scaling_factor
    prediction_type  "epsilon" or "v_prediction"
    signal           share of signal left at each training timestep (diffusers' alphas_cumprod)
    files            path -> {"bytes", "sha256"}
    tensors          [{"name", "file", "offset", "bytes", "shape", "dtype", "role", "sha256"}]
    slopes           [{"epsilon", "correlation", "sign_agreement"}]: one-sided zeroth-order slopes
                     of this graph against the exact ones of the float model, by relative radius
    slopes_from      {"samples", "directions"}: how many of each the table is measured on, at the
                     start vectors, at timesteps of a run; {"reference"} is "gradient" or, for
                     models too large for it, "central differences"
    safe_epsilon     the radius at which rounding is 5 % of the slopes' variance; training takes
                     none below it
    loss_tolerance   twice the largest relative difference of a loss from the float model's, over
                     the same samples; at least 1e-5, for float32 sums in another order
    forward_bytes    peak resident bytes of a fresh process that took one training step

Weights lie in `.weights` files as ONNX external data, so that an engine may map a file instead of
reading it: tensors of 4096 bytes or more begin at a multiple of 4096, others of 64. Roles: `weight`
(float), `quantized` (int8 or packed int4), `scale`, `zero_point` and `bias` (int32, of a quantized
convolution).

Inputs of `step.onnx`, B samples, L ids in a prompt, V vectors, W their width:

    latents (B, C, h, w) float32, already noised    timesteps (B,) int64
    target (B, C, h, w) float32                     ids (B, L) int64; id -1-j is vector j
    rows (B, L, W) float32, the table's rows of `ids` (anything where an id is negative)
    token (B, V, W) float32, the vectors of every sample
    sdxl also: ids_2, rows_2, token_2, and time_ids (B, 6) float32

Outputs: loss (B,), the mean squared error, and prediction (B, C, h, w), both float32.
`vae_encoder.onnx`: pixels (B, 3, H, W) in [-1, 1] -> mean, deviation (B, C, h, w).
`vae_decoder.onnx`: latents (B, C, h, w), as the VAE knows them -> pixels (B, 3, H, W).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.tensor_file import TensorFile

FORMAT = "edge-train artifact"
VERSION = 1
MANIFEST = "manifest.json"
EMBEDDINGS = "embeddings.safetensors"
QUANTS = ("none", "int8", "int8-fast", "int4")
_FAMILIES = ("sd1", "sd2", "sdxl")
_PREDICTIONS = ("epsilon", "v_prediction")
_READ_BYTES = 1 << 20
_AGAIN = "The copy is damaged or was edited; export it again."


@dataclass(frozen=True)
class FileEntry:
    """Size and hash of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ArtifactTensor:
    """Where one tensor of a graph lies, what it is and the hash of its bytes."""

    name: str
    file: str
    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    role: Literal["weight", "quantized", "scale", "zero_point", "bias"]
    sha256: str


@dataclass(frozen=True)
class SlopeRow:
    """How this graph's slopes at one relative radius relate to the float model's exact ones."""

    epsilon: float
    correlation: float
    sign_agreement: float


@dataclass(frozen=True)
class Manifest:
    """The table of contents; the module docstring says what each key means."""

    requires: Mapping[str, int]
    origin: Mapping[str, str]
    family: Literal["sd1", "sd2", "sdxl"]
    quant: str
    engine: Mapping[str, str]
    resolution: int
    latent_channels: int
    latent_scale: int
    prompt_tokens: int
    text_widths: tuple[int, ...]
    scaling_factor: float
    shift_factor: float
    prediction_type: str
    signal: tuple[float, ...]
    files: Mapping[str, FileEntry]
    tensors: tuple[ArtifactTensor, ...]
    slopes: tuple[SlopeRow, ...]
    slopes_from: Mapping[str, int | str]
    safe_epsilon: float
    loss_tolerance: float
    forward_bytes: int

    def to_bytes(self) -> bytes:
        """Return the JSON of `manifest.json`."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Artifact:
    """A checked artifact folder; it answers what `ModelFolder` answers about a run's model."""

    path: Path
    manifest: Manifest

    @property
    def family(self) -> Literal["sd1", "sd2", "sdxl"]:
        """`sd1`, `sd2` or `sdxl`."""
        return self.manifest.family

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The text encoders in the order of their features."""
        return ("text_encoder", "text_encoder_2")[: len(self.manifest.text_widths)]

    @property
    def tokenizers(self) -> tuple[Path, ...]:
        """The tokenizer folder of each text encoder."""
        names = (name.replace("text_encoder", "tokenizer") for name in self.text_encoders)
        return tuple(self.path / name for name in names)

    @property
    def prompt_tokens(self) -> int:
        """The length of a padded prompt."""
        return self.manifest.prompt_tokens

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: `epsilon` or `v_prediction`."""
        return self.manifest.prediction_type

    @property
    def latent_channels(self) -> int:
        return self.manifest.latent_channels

    @property
    def latent_scale(self) -> int:
        """Pixels a side of one latent cell."""
        return self.manifest.latent_scale

    @property
    def resolution(self) -> int:
        """The picture side, in pixels, that the graphs were exported for."""
        return self.manifest.resolution

    @cached_property
    def alphas_cumprod(self) -> NDArray[np.float32]:
        """Share of signal that is left at each training timestep."""
        return np.array(self.manifest.signal, np.float32)

    def sha256(self) -> str:
        """Return the hash of the manifest, which holds those of all other files."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    def embedding_rows(self, component: str, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return token vectors (len(ids), width) of a text encoder; only these are read.

        Raises:
          ModelError: an id lies outside the vocabulary.
        """
        file = TensorFile(self.path / EMBEDDINGS)
        size = file.entries[component].shape[0]
        for index in ids:
            if not 0 <= index < size:
                raise ModelError(
                    f"{self.path / EMBEDDINGS}: token id {index} is outside the vocabulary of "
                    f"{size}; tokenizer and table do not belong together. {_AGAIN}"
                )
        return file.rows(component, ids)


def is_artifact(path: Path) -> bool:
    """Return whether a folder says it is an artifact."""
    return (path / MANIFEST).is_file()


def open_artifact(path: Path) -> Artifact:
    """Return the artifact in a folder after comparing every file with its hash.

    Raises:
      ModelError: it is damaged, edited, incomplete, newer than this program or no artifact.
    """
    manifest = _read_manifest(path / MANIFEST)
    for name, entry in manifest.files.items():
        _check_file(path, name, entry, manifest.tensors)
    return Artifact(path, manifest)


def describe_file(path: Path) -> FileEntry:
    """Return the size and hash of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_bytes())
        kind, version = content.pop("format", None), content.pop("version", None)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); export it again.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a JSON object ({error}). {_AGAIN}") from error
    if kind != FORMAT:
        raise ModelError(f"{path}: format is {kind!r}, expected {FORMAT!r}; not our artifact.")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ModelError(
            f"{path}: format version {version} is not known, this program reads 1 to {VERSION}; "
            "install a newer edge-train, or export it again with this one."
        )
    try:
        manifest = _parse(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: a key is missing or of a wrong type ({error}). {_AGAIN}") from (
            error
        )
    for word, known in (
        ("family", _FAMILIES),
        ("quant", QUANTS),
        ("prediction_type", _PREDICTIONS),
    ):
        if (found := getattr(manifest, word)) not in known:
            raise ModelError(
                f"{path}: {word} is {found!r}, this program knows {', '.join(known)}; install a "
                "newer edge-train, or export another model."
            )
    return manifest


def _parse(content: Mapping[str, Any]) -> Manifest:
    """Return the manifest; unknown keys are left out."""
    known = [field.name for field in dataclasses.fields(Manifest)]
    values = {name: content[name] for name in known}
    values["files"] = {name: FileEntry(**entry) for name, entry in values["files"].items()}
    values["tensors"] = tuple(
        ArtifactTensor(**{**entry, "shape": tuple(entry["shape"])}) for entry in values["tensors"]
    )
    values["slopes"] = tuple(SlopeRow(**row) for row in values["slopes"])
    values["signal"] = tuple(float(share) for share in values["signal"])
    values["text_widths"] = tuple(int(width) for width in values["text_widths"])
    return Manifest(**values)


def _check_file(
    folder: Path, name: str, entry: FileEntry, tensors: Sequence[ArtifactTensor]
) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / MANIFEST}: file {name!r} lies outside the folder. {_AGAIN}")
    try:
        found = describe_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). {_AGAIN}") from error
    if found.bytes != entry.bytes:
        raise ModelError(
            f"artifact {folder}: {name} has {found.bytes} bytes, manifest says {entry.bytes}. "
            f"{_AGAIN}"
        )
    if found.sha256 != entry.sha256:
        where = _damaged_tensor(path, [tensor for tensor in tensors if tensor.file == name])
        raise ModelError(
            f"artifact {folder}: {name}{where} has sha256 {found.sha256[:12]}..., manifest says "
            f"{entry.sha256[:12]}.... {_AGAIN}"
        )


def _damaged_tensor(path: Path, tensors: Sequence[ArtifactTensor]) -> str:
    """Return the name of the first tensor whose bytes changed, as part of a message."""
    with path.open("rb", buffering=0) as file:
        for tensor in tensors:
            file.seek(tensor.offset)
            if hashlib.sha256(file.read(tensor.bytes)).hexdigest() != tensor.sha256:
                return f" (tensor {tensor.name!r})"
    return ""
