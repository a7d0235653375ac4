"""From a checked recipe to the parts of a personalization: photos, latents, runtime, batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.artifact import STRIP_GRAPHS, Artifact, is_artifact, open_artifact
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.embedded import EMBEDDED, PHOTOS
from edge_train.formats.hub import find_model
from edge_train.formats.training_artifact import is_training_artifact
from edge_train.memory.measure import cores
from edge_train.quant import quants
from edge_train.recipe import known
from edge_train.tasks.personalize import TASK, captions
from edge_train.tasks.personalize.objective import Personalize, PhotoCache, build_cache
from edge_train.tasks.personalize.photos import PhotoSet, load_photos
from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

if TYPE_CHECKING:
    from edge_train.runtimes.onnx.diffusion import OnnxDiffusion
    from edge_train.runtimes.torch.diffusion import TorchDiffusion

    Denoiser = TorchDiffusion | OnnxDiffusion

_JUDGED_SIDE = 32  # pixels; an artifact of the embedded model may have another side
# What a run holds, at most, while it decodes one picture in one piece: bytes, and bytes per pixel.
# For the VAE that all three families share; measured at 512 pixels: 1.50 GB and 2.76 GB.
_ONNX_VAE = (300_000_000, 5_000)
_TORCH_VAE = (700_000_000, 8_000)
_PIXELS_IN_STRIPS = 128**2  # below this everything fits in a strip or two
# Rounded activations put noise of one size on every slope, and slopes shrink as a word is learned.
# With the usual 4 directions a step one run in three ended far below float; edge-train bench
# engine-quality has the table.
_QUERIES_WHERE_ROUNDED = 8
_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "sd1": {"window": (500, 900), "guidance": 7.5},
    "sd2": {"window": (500, 900), "guidance": 7.5},
    "sdxl": {"window": (700, 900), "guidance": 5.0},
    EMBEDDED: {
        "threads": 1,  # its layers are too small to share
        "window": (300, 1000),
        "guidance": 3.0,
        "class_word": "item",
        "prompts": tuple(
            f"a photo of a {color} {{}} on a {background} background"
            for color, background in (
                ("red", "white"),
                ("blue", "yellow"),
                ("green", "black"),
                ("yellow", "blue"),
            )
        ),
    },
}


@dataclass(frozen=True)
class TokenJob:
    """A recipe whose every word was checked against its model and photos; nothing heavy yet.

    `tokenizers` go by the model input they feed ("ids", and "ids_2" for XL); `start` holds the
    vectors that training starts from, by block ("token", and "token_2" for XL).
    """

    recipe: PersonalizeRecipe
    model: ModelFolder | Artifact
    tokenizers: Mapping[str, PromptTokenizer]
    start: Mapping[str, Array]
    notes: tuple[str, ...]

    @property
    def judged(self) -> bool:
        """Whether the embedded judge can score pictures: those of the embedded model."""
        return _is_embedded(self.recipe, self.model) and self.recipe.resolution == _JUDGED_SIDE

    def ids(self, prompt: str) -> dict[str, NDArray[np.int64]]:
        """Return the token ids of a prompt for every text encoder."""
        vectors = self.recipe.vectors
        return {name: t.encode(prompt, vectors) for name, t in self.tokenizers.items()}

    def constant(self) -> dict[str, Array]:
        """Return the model inputs that are the same for every sample."""
        if self.model.family != "sdxl":
            return {}
        side = float(known(self.recipe.resolution))
        return {"time_ids": np.array([side, side, 0, 0, side, side], np.float32)}


def check(recipe: PersonalizeRecipe) -> TokenJob:
    """Return the job that a recipe describes, with every default filled in.

    Raises:
      InputError, ModelError: a word, size or model that cannot be used.
    """
    model = _open_model(recipe.model)
    recipe = _with_engine(recipe, model)
    defaults = {
        "class_word": "object",
        "prompts": ("a photo of {}",),
        "resolution": model.resolution,
        "threads": cores(),
        **_FAMILY_DEFAULTS[EMBEDDED if _is_embedded(recipe, model) else model.family],
    }
    rounding = isinstance(model, Artifact) and quants.get(recipe.quant).rounds_activations
    if rounding and recipe.preset == "default" and recipe.queries is None:
        recipe = replace(recipe, queries=_QUERIES_WHERE_ROUNDED)
    recipe = TASK.resolve(recipe, recipe.runtime, defaults)
    recipe = replace(recipe, token=recipe.token or f"<my-{recipe.class_word}>")
    side, cell = known(recipe.resolution), model.latent_scale
    if side % cell:
        raise InputError(
            f"resolution {side} is not a multiple of {cell}, the pixels in a latent cell of this "
            f"model; try {max(side // cell, 1) * cell}."
        )
    if known(recipe.window)[1] > len(model.alphas_cumprod):
        raise InputError(
            f"window {list(known(recipe.window))} goes past the model's "
            f"{len(model.alphas_cumprod)} timesteps."
        )
    captions.file_name_of(known(recipe.token))
    names = ("ids", "ids_2")[: len(model.tokenizers)]
    tokenizers = {
        name: PromptTokenizer.from_folder(folder)
        for name, folder in zip(names, model.tokenizers, strict=True)
    }
    start, notes = {}, _device_notes(recipe, model)
    for block, component, tokenizer in zip(
        ("token", "token_2"), ("text_encoder", "text_encoder_2"), tokenizers.values(), strict=False
    ):
        tokenizer.check_new_token(known(recipe.token))
        ids = tokenizer.word_ids(known(recipe.class_word))
        if not ids:
            raise InputError("the class word is empty; name what is on the photos: --class dog.")
        if len(ids) > 1 and block == "token":
            notes.append(
                f"class word {recipe.class_word!r} is {len(ids)} tokens for this model; the new "
                "token starts from their average."
            )
        row = model.embedding_rows(component, ids).mean(axis=0)
        start[block] = np.tile(row, (recipe.vectors, 1)).astype(np.float32)
    prompts = tuple(prompt_of(recipe, prompt) for prompt in recipe.prompts)
    job = TokenJob(replace(recipe, prompts=prompts), model, tokenizers, start, tuple(notes))
    for prompt in prompts:
        job.ids(prompt)
    return job


def _open_model(name: str) -> ModelFolder | Artifact:
    path = Path(name).expanduser()
    if is_training_artifact(path):
        raise InputError(
            f"{name} is the artifact of a text classifier; add --task classify, or name another "
            "model."
        )
    return open_artifact(path) if is_artifact(path) else find_model(name)


def _is_embedded(recipe: PersonalizeRecipe, model: ModelFolder | Artifact) -> bool:
    origin = model.manifest.origin["model"] if isinstance(model, Artifact) else recipe.model
    return origin == EMBEDDED


def _with_engine(recipe: PersonalizeRecipe, model: ModelFolder | Artifact) -> PersonalizeRecipe:
    """Return the recipe with the runtime that the model needs, and what an artifact has fixed.

    Raises:
      InputError: the recipe asks for something else.
    """
    if not isinstance(model, Artifact):
        if recipe.runtime == "onnx":
            raise InputError(
                f"runtime 'onnx' runs exported models; write one with `edge-train export "
                f"{recipe.model} OUT`, then run --model OUT."
            )
        if recipe.runtime == "ort-training":
            raise InputError(
                "runtime 'ort-training' has no gradient for the GroupNorm and Resize of a Stable "
                "Diffusion; use --runtime torch."
            )
        if recipe.quant == "int8-fast":
            raise InputError(
                "quant 'int8-fast' is of exported models; use --quant int8, or `edge-train export "
                f"{recipe.model} OUT --quant int8-fast`."
            )
        if find_spec("torch") is None:
            raise InputError(
                f"training {recipe.model} needs torch, which is not installed; `pip install "
                "edge-train[desk]`, or export the model where torch is and copy the artifact here: "
                "--model ARTIFACT."
            )
        return replace(recipe, runtime="torch")
    fixed: dict[str, Any] = {
        "runtime": "onnx",
        "quant": model.manifest.quant,
        "resolution": model.resolution,
        "dtype": "auto",
    }
    for name, value in fixed.items():
        if (wanted := getattr(recipe, name)) not in (value, "auto", None):
            raise InputError(
                f"{name} {wanted!r} was asked for, but artifact {recipe.model} was exported for "
                f"{value!r}; leave it out, or export another one."
            )
    return replace(recipe, **fixed)


def _device_notes(recipe: PersonalizeRecipe, model: ModelFolder | Artifact) -> list[str]:
    """Return why an artifact runs where it runs.

    Raises:
      InputError: no engine, or none that has this device.
    """
    if not isinstance(model, Artifact):
        return []
    from edge_train.runtimes.onnx.engine import check_engine, pick_provider

    check_engine(model.path, model.manifest.requires)
    provider = pick_provider(recipe.device, recipe.quant)
    if recipe.lean and provider.device != "cpu":
        raise InputError(
            f"--lean leaves the weights in their file, which only the cpu can compute from; device "
            f"is {provider.device}. Leave it out, or use --device cpu."
        )
    notes = [f"device {provider.device}: {provider.reason}"]
    if recipe.epsilon is not None and recipe.epsilon < model.manifest.safe_epsilon:
        notes.append(
            f"epsilon {recipe.epsilon:g} is below {model.manifest.safe_epsilon:g}, the smallest "
            "radius whose slopes are signal in this artifact; leave it out, and a check picks one."
        )
    if recipe.cap_bytes is not None and provider.device != "cpu":
        notes.append(
            f"memory that device {provider.device} has of its own is not measured; --mem is about "
            "this process" + (" and the engine's CUDA arena" * (provider.device == "cuda"))
        )
    return notes


def prompt_of(recipe: PersonalizeRecipe, text: str) -> str:
    """Return a prompt with `{}` wherever the user wrote the token or its class word.

    Raises:
      InputError: it names neither.
    """
    return captions.place(text, known(recipe.token), known(recipe.class_word), "the prompt")


def photos_of(recipe: PersonalizeRecipe) -> Path:
    """Return the folder of photos: the user's, or the embedded example."""
    return Path(recipe.photos).expanduser() if recipe.photos else PHOTOS


def load_job_photos(job: TokenJob) -> tuple[PhotoSet, tuple[tuple[str, ...], ...]]:
    """Return the photos, cropped, and the captions of each.

    Raises:
      InputError: no photos, a broken photo or a caption that cannot be used.
    """
    recipe = job.recipe
    photos = load_photos(photos_of(recipe), known(recipe.resolution))
    learn: Literal["object", "style"] = "style" if recipe.learn == "style" else "object"
    texts = captions.captions_for(
        photos.photos, known(recipe.token), known(recipe.class_word), learn
    )
    for text in {text for own in texts for text in own}:
        job.ids(text)
    return photos, texts


def encode_photos(job: TokenJob, photos: PhotoSet, texts: Sequence[Sequence[str]]) -> PhotoCache:
    """Return the latents of the photos and the ids of their captions; the VAE comes and goes."""
    recipe = job.recipe
    pixels = np.stack([photo.pixels for photo in photos.photos])
    if recipe.flips:
        pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
    if isinstance(job.model, Artifact):
        from edge_train.runtimes.onnx import vae as onnx_vae

        threads = known(recipe.threads)
        mean, deviation = onnx_vae.encode_photos(
            job.model, pixels, recipe.device, threads, strips=vae_in_strips(job)
        )
    else:
        from edge_train.runtimes.torch import vae as torch_vae

        mean, deviation = torch_vae.encode_photos(
            job.model, pixels, recipe.device, strips=vae_in_strips(job)
        )
    return build_cache(mean, deviation, [[job.ids(text) for text in own] for own in texts])


def decode_latents(job: TokenJob, latents: Array) -> NDArray[np.uint8]:
    """Return the pictures (n, height, width, 3) of latents; the VAE comes and goes."""
    limit, strips = job.recipe.batch_limit, vae_in_strips(job)
    if isinstance(job.model, Artifact):
        from edge_train.runtimes.onnx import vae as onnx_vae

        threads = known(job.recipe.threads)
        return onnx_vae.decode_latents(
            job.model, latents, job.recipe.device, threads, limit, strips=strips
        )
    from edge_train.runtimes.torch import vae as torch_vae

    return torch_vae.decode_latents(job.model, latents, job.recipe.device, limit, strips=strips)


def vae_in_strips(job: TokenJob) -> bool:
    """Return whether photos and pictures go through the VAE in strips, for want of memory.

    They do in a lean run, and under a cap that the VAE in one piece would exceed on a CPU. The
    numbers then differ as sums in another order do; an artifact needs the graphs for it.
    """
    recipe, model = job.recipe, job.model
    pixels = known(recipe.resolution) ** 2
    if isinstance(model, Artifact):
        if STRIP_GRAPHS[0] not in model.manifest.files or recipe.device not in ("auto", "cpu"):
            return False
        base_bytes, pixel_bytes = _ONNX_VAE
    else:
        base_bytes, pixel_bytes = _TORCH_VAE
        if recipe.device not in ("auto", "cpu") or pixels < _PIXELS_IN_STRIPS:
            return False
    needed = base_bytes + pixels * pixel_bytes
    return recipe.lean or (recipe.cap_bytes is not None and recipe.cap_bytes < needed)


def open_runtime(
    job: TokenJob, parameters: Parameters, ids: Mapping[str, NDArray[np.int64]]
) -> "Denoiser":
    """Return the runtime, with only those rows of the embedding tables that `ids` use.

    Args:
      ids: per text encoder input, every id that training and previews will need.
    """
    recipe = job.recipe
    used = [np.unique(ids[name]) for name in job.tokenizers]
    token_ids = [own[own >= 0].tolist() for own in used]
    if isinstance(job.model, Artifact):
        from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

        return OnnxDiffusion(
            job.model,
            parameters,
            device=recipe.device,
            token_ids=token_ids,
            threads=known(recipe.threads),
            lean=recipe.lean,
            cap_bytes=recipe.cap_bytes,
        )
    from edge_train.runtimes.torch.diffusion import TorchDiffusion

    return TorchDiffusion.open(
        job.model,
        parameters,
        quant=recipe.quant,
        dtype=recipe.dtype,
        device=recipe.device,
        token_ids=token_ids,
        threads=known(recipe.threads),
        lean=recipe.lean,
        cap_bytes=recipe.cap_bytes,
    )


def smallest_radius(job: TokenJob) -> float:
    """Return the radius below which an artifact measured mostly rounding; 0 for other models."""
    return job.model.manifest.safe_epsilon if isinstance(job.model, Artifact) else 0.0


def build_task(job: TokenJob, cache: PhotoCache) -> Personalize:
    """Return the task of a recipe."""
    recipe = job.recipe
    return Personalize(
        cache=cache,
        signal=job.model.alphas_cumprod,
        prediction_type=job.model.prediction_type,
        window=known(recipe.window),
        samples=known(recipe.samples),
        evaluation_samples=known(recipe.evaluation_samples),
        constant=job.constant(),
    )
