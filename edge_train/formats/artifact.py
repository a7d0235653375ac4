"""The artifact: a model on disk that an inference engine trains without torch; its specification.

An artifact is a folder. `manifest.json` says what the others are; nothing else is looked at.

    manifest.json             this table of contents, UTF-8 JSON, keys sorted
    step.onnx, step.weights   prompts -> text encoders -> denoiser -> loss of every sample
    vae_encoder.onnx, .weights    pictures -> mean and deviation of their latents
    vae_decoder.onnx, .weights    latents -> pictures
    vae_encoder_strips.onnx, vae_decoder_strips.onnx
                              the same from the same weights, for little memory; both or neither
    embeddings.safetensors    the token tables, (vocabulary, width), one tensor per text encoder
    tokenizer/, tokenizer_2/  as the model's author published them
    directions.safetensors    what zo may draw its directions from (`token_directions.py`); optional

Manifest, version 1. Every key but `products`, `calls` and `spacing` is required; a reader refuses
a larger version, ignores unknown keys of its own version, and believes nothing: every file must lie
in the folder and have the size and hash stated here, every number must be possible, and a graph may
name no other files than these.

    format           "edge-train artifact"
    version          1
    requires         {"ir": 10, "opset": 18}: what the engine must read, at most
    origin           {"model", "sha256", "edge_train"}: what was exported (a folder by its name;
                     in earlier artifacts by its whole path), its weights, by whom
    family           "sd1", "sd2" or "sdxl"
    quant            "none", "int8", "int8-fast" or "int4"
    products         "float", or "uint8 x 7-bit": no pair of integer products can leave 16 signed
                     bits. Artifacts that were exported before it lack it: their weights say it
    calls            "points of a sample": `step.onnx` rounds with one scale for a whole call, and
                     was measured with all points of one sample in a call. Without it a call that
                     rounds so has one sample at one point; float graphs need none
    engine           session options that the numbers depend on; a runtime sets every one
    resolution, latent_channels, latent_scale, prompt_tokens, text_widths
                     pixels a side, channels of a latent, pixels per latent cell, ids of a padded
                     prompt, width of each text encoder's vectors
    scaling_factor, shift_factor
                     a denoiser's latent is (the VAE's - shift_factor) * scaling_factor
    prediction_type  "epsilon" or "v_prediction"
    spacing          which timesteps pictures visit: "leading", "trailing" or "linspace", as
                     diffusers has it; without the key leading
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
    forward_bytes    peak resident bytes of a fresh process that took one training step, rounded
                     up to 8 MB, so that the same export has the same bytes

Weights lie in `.weights` files as ONNX external data, so that an engine may map a file instead of
reading it: tensors of 4096 bytes or more begin at a multiple of 4096, others of 64. Roles: `weight`
(float), `quantized` (int8 or packed int4; int8 from -64 to 64 where it meets uint8 activations, and
to 127 in artifacts that were exported before that), `scale`, `zero_point` and `bias` (int32, of a
quantized convolution).

Inputs of `step.onnx`, B samples, L ids in a prompt, V vectors, W their width:

    latents (B, C, h, w) float32, already noised    timesteps (B,) int64
    target (B, C, h, w) float32                     ids (B, L) int64; id -1-j is vector j
    rows (B, L, W) float32, the table's rows of `ids` (anything where an id is negative)
    token (B, V, W) float32, the vectors of every sample
    sdxl also: ids_2, rows_2, token_2, and time_ids (B, 6) float32

Where the first length of `latents` has another name than that of `token`, a call whose B losses are
all of one sample may give latents, timesteps and target once, with 1 for B. Artifacts that were
exported before it have one name for all.

Outputs: loss (B,), the mean squared error, and prediction (B, C, h, w), both float32.
`vae_encoder.onnx`: pixels (B, 3, H, W) in [-1, 1] -> mean, deviation (B, C, h, w).
`vae_decoder.onnx`: latents (B, C, h, w), as the VAE knows them -> pixels (B, 3, H, W).
The graphs in strips take and give the same. They hold little only if an engine runs their nodes in
the order of the file; a reader that does not know them loses nothing.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.diffusion_folder import SPACINGS
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
)
from edge_train.formats.onnx_file import read_graph_file
from edge_train.formats.onnx_products import IntegerProducts, read_products
from edge_train.formats.tensor_file import TensorFile
from edge_train.quant import (
    FLOAT_PRODUCTS,
    POINTS_OF_A_SAMPLE,
    SEVEN_BIT_PRODUCTS,
    of_artifacts,
)

FORMAT = "edge-train artifact"
VERSION = 1
EMBEDDINGS = "embeddings.safetensors"
_FAMILIES = ("sd1", "sd2", "sdxl")
_PREDICTIONS = ("epsilon", "v_prediction")
_PRODUCTS = ("", FLOAT_PRODUCTS, SEVEN_BIT_PRODUCTS)
_CALLS = ("", POINTS_OF_A_SAMPLE)
GRAPHS = ("step.onnx", "vae_encoder.onnx", "vae_decoder.onnx")
STRIP_GRAPHS = ("vae_encoder_strips.onnx", "vae_decoder_strips.onnx")
_ORIGIN = ("model", "sha256", "edge_train")
_REQUIRES = ("ir", "opset")
# Session options that only change arithmetic. Others may name files, so they are no free choice.
_ENGINE = ("session.qdq_matmulnbits_accuracy_level",)
_ITEM_BYTES = {"float32": 4, "float16": 2, "int32": 4, "int8": 1, "uint8": 1}
_ROLES = ("weight", "quantized", "scale", "zero_point", "bias")
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("resolution", 8, 4096),
    ("latent_channels", 1, 64),
    ("latent_scale", 1, 64),
    ("prompt_tokens", 2, 4096),
    ("text_widths", 1, 65_536),
    ("scaling_factor", 1e-6, 1e6),
    ("shift_factor", -1e6, 1e6),
    ("signal", 0, 1),
    ("safe_epsilon", 0, 1e3),
    ("loss_tolerance", 0, 1e3),
    ("forward_bytes", 0, 1e15),
)


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
class SlopeBasis:
    """What a slope table is measured on, and what it is compared with."""

    samples: int
    directions: int
    reference: str


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
    slopes_from: SlopeBasis
    safe_epsilon: float
    loss_tolerance: float
    forward_bytes: int
    products: str = ""  # not said
    calls: str = ""  # not said
    spacing: str = "leading"

    def to_bytes(self) -> bytes:
        """Return the JSON of `manifest.json`."""
        return manifest_bytes(self, FORMAT, VERSION)


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
    def spacing(self) -> str:
        """Which timesteps pictures visit: `leading`, `trailing` or `linspace`."""
        return self.manifest.spacing

    @property
    def zeroes_empty(self) -> bool:
        """Return False: the graph knows no features but those of a prompt, and XL's guidance none.

        Pictures of an exported XL are guided away from the empty prompt.
        """
        return False

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

    @cached_property
    def integer_products(self) -> IntegerProducts:
        """What the step graph multiplies in integers."""
        return read_products(self.path / "step.onnx")

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
                    f"{size}; tokenizer and table do not belong together. {AGAIN}"
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
    manifest = _read_manifest(path)
    for name, entry in manifest.files.items():
        if found := same_content(path, name, entry):
            own = [tensor for tensor in manifest.tensors if tensor.file == name]
            refuse_content(path, f"{name}{_damaged_tensor(path / name, own)}", found, entry)
    for name in (*GRAPHS, *(name for name in STRIP_GRAPHS if name in manifest.files)):
        _check_graph(path, name, manifest)
    artifact = Artifact(path, manifest)
    _check_texts(artifact)
    return artifact


def exported_from(path: Path) -> str:
    """Return which model an artifact says it was exported from; nothing else of it is read.

    Raises:
      ModelError: its manifest is damaged, newer than this program or none.
    """
    return _read_manifest(path).origin["model"]


def _read_manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder, Manifest, FORMAT, VERSION, "not our artifact")
    for word, known in (
        ("family", _FAMILIES),
        ("quant", of_artifacts()),
        ("prediction_type", _PREDICTIONS),
        ("products", _PRODUCTS),
        ("calls", _CALLS),
        ("spacing", SPACINGS),
    ):
        if (found := getattr(manifest, word)) not in known:
            raise ModelError(
                f"{folder / MANIFEST}: {word} is {found!r}, this program knows "
                f"{', '.join(filter(None, known))}; install a newer edge-train, or export another "
                "model."
            )
    if complaint := _impossible(manifest):
        raise ModelError(f"{folder / MANIFEST}: {complaint}. {AGAIN}")
    return manifest


def _impossible(manifest: Manifest) -> str:
    """Return what no real model has, as part of a message; empty if there is nothing."""
    if complaint := missing_key(manifest, {"requires": _REQUIRES, "origin": _ORIGIN}):
        return complaint
    for key in manifest.engine:
        if key not in _ENGINE:
            return f"engine option {key!r} is not known; expected {', '.join(_ENGINE)}"
    for name, low, high in _RANGES:
        found = getattr(manifest, name)
        for value in found if isinstance(found, tuple) else (found,):
            if not low <= value <= high:
                return f"{name} is {value}, must be from {low:g} to {high:g}"
    if manifest.resolution % manifest.latent_scale:
        return f"resolution {manifest.resolution} is no multiple of {manifest.latent_scale}"
    encoders = 2 if manifest.family == "sdxl" else 1
    if len(manifest.text_widths) != encoders:
        return f"text_widths has {len(manifest.text_widths)} numbers, {manifest.family} {encoders}"
    if not manifest.signal:
        return "signal has no timesteps"
    if len(set(STRIP_GRAPHS) & manifest.files.keys()) == 1:
        return f"only one of {', '.join(STRIP_GRAPHS)} is listed"
    return impossible_file(manifest.files, (*GRAPHS, EMBEDDINGS)) or _impossible_tensor(manifest)


def _impossible_tensor(manifest: Manifest) -> str:
    seen = set()
    for tensor in manifest.tensors:
        what = f"tensor {tensor.name!r}"
        if (tensor.file, tensor.name) in seen:
            return f"{what} is listed twice in {tensor.file}"
        seen.add((tensor.file, tensor.name))
        if tensor.file not in manifest.files:
            return f"{what} is in file {tensor.file!r}, which is not listed"
        if tensor.role not in _ROLES or tensor.dtype not in _ITEM_BYTES:
            return f"{what} is a {tensor.role!r} of type {tensor.dtype!r}, which is not known"
        wanted = math.prod(tensor.shape) * _ITEM_BYTES[tensor.dtype]
        if min((0, *tensor.shape)) < 0 or tensor.bytes != wanted:
            return f"{what} of shape {list(tensor.shape)} cannot have {tensor.bytes} bytes"
        if not 0 <= tensor.offset <= manifest.files[tensor.file].bytes - tensor.bytes:
            return f"{what} goes past the end of {tensor.file}"
    return ""


def _check_graph(folder: Path, name: str, manifest: Manifest) -> None:
    """Raise ModelError if a graph asks for more than the manifest says."""
    graph = read_graph_file(folder / name)
    for word, found in (("ir", graph.ir), ("opset", graph.opset)):
        if found > manifest.requires[word]:
            raise ModelError(
                f"artifact {folder}: {name} is of {word} {found}, manifest says "
                f"{manifest.requires[word]}. {AGAIN}"
            )
    for place in graph.external:
        entry = manifest.files.get(place.location)
        if entry is None:
            raise ModelError(
                f"artifact {folder}: {name} reads its weights from {place.location!r}, which is "
                f"not a file of this artifact. {AGAIN}"
            )
        end = place.offset + (place.length or 0)
        if place.offset < 0 or end < place.offset or end > entry.bytes:
            raise ModelError(
                f"artifact {folder}: {name} reads past the end of {place.location}. {AGAIN}"
            )


def _check_texts(artifact: Artifact) -> None:
    """Raise ModelError if token tables or tokenizers are not what the manifest describes."""
    path = artifact.path / EMBEDDINGS
    entries = TensorFile(path).entries
    for component, width in zip(artifact.text_encoders, artifact.manifest.text_widths, strict=True):
        found = entries.get(component)
        if found is None or not found.is_float or found.shape[1:] != (width,) or not found.shape[0]:
            what = f"{found.dtype} {list(found.shape)}" if found else "missing"
            raise ModelError(
                f"{path}: table {component!r} is {what}, expected floats, {width} a token. {AGAIN}"
            )
    for folder in artifact.tokenizers:
        if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise ModelError(f"{folder}: no vocab.json. {AGAIN}")


def _damaged_tensor(path: Path, tensors: Sequence[ArtifactTensor]) -> str:
    """Return the name of the first tensor whose bytes changed, as part of a message."""
    with path.open("rb", buffering=0) as file:
        for tensor in tensors:
            file.seek(tensor.offset)
            if hashlib.sha256(file.read(tensor.bytes)).hexdigest() != tensor.sha256:
                return f" (tensor {tensor.name!r})"
    return ""
