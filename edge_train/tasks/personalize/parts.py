"""From a checked recipe to the parts of a personalization: model, tokenizers, runtime, batches."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.adapter import Adapter
from edge_train.formats.artifact import Artifact, is_artifact, open_artifact
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.embedded import (
    EMBEDDED,
    PHOTOS,
    SHORTEST_LEARNED,
    embedded_artifact,
)
from edge_train.formats.hub import find_model
from edge_train.formats.training_artifact import is_training_artifact
from edge_train.memory.machine import cores
from edge_train.methods import methods
from edge_train.methods.exact import names_rate
from edge_train.methods.method import GRADIENT, Parts
from edge_train.recipe import required
from edge_train.tasks.personalize import TASK, adapting, captions
from edge_train.tasks.personalize.buckets import bucket_sizes
from edge_train.tasks.personalize.directing import (
    directions_of,
    said_of_directions,
    span_steps,
    with_directions,
)
from edge_train.tasks.personalize.named_things import class_word_of, token_of
from edge_train.tasks.personalize.objective import Personalize, PhotoCache
from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.serving import (
    AdaptingServing,
    Denoiser,
    Model,
    Pictures,
    Serving,
    hashes_of,
)
from edge_train.tasks.personalize.start import learned_vectors

if TYPE_CHECKING:
    from edge_train.tasks.personalize import on_onnx, on_torch

    # ours keep to the protocol; nothing but a type checker reads this
    _OURS: tuple[AdaptingServing[ModelFolder], Serving[Artifact]] = (on_torch, on_onnx)

_JUDGED_SIDE = 32  # pixels; an artifact of the embedded model may have another side
_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "sd1": {"window": (500, 900), "guidance": 7.5},
    "sd2": {"window": (500, 900), "guidance": 7.5},
    "sdxl": {"window": (700, 900), "guidance": 5.0},
    EMBEDDED: {
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

    `tokenizers` go by the model input they feed ("ids", and "ids_2" for XL); `start` holds what
    training starts from, by block: vectors ("token", and "token_2" for XL), or the matrices of
    `adapter`, where a LoRA is trained. `directions` holds, by block, what zo draws from; none where
    that is all directions there are.
    """

    recipe: PersonalizeRecipe
    model: Model
    tokenizers: Mapping[str, PromptTokenizer]
    start: Mapping[str, Array]
    notes: tuple[str, ...]
    adapter: Adapter | None = None
    directions: Mapping[str, Array] = field(default_factory=dict)

    @property
    def serving(self) -> Serving[Any]:
        """What the engine does; it let this kind of model through."""
        return _serving(self.recipe.runtime)

    @property
    def judged(self) -> bool:
        """Whether the embedded judge can score pictures: squares of the embedded model."""
        origin = self.serving.origin(self.recipe, self.model)
        squares = self.recipe.resolution == _JUDGED_SIDE and not self.recipe.buckets
        return origin == EMBEDDED and squares

    @property
    def vae_in_strips(self) -> bool:
        """Whether photos and pictures go through the VAE in strips, for want of memory."""
        return self.serving.vae_in_strips(self.recipe, self.model)

    def parts(self, epsilon: float, scale: Mapping[str, float]) -> Parts:
        """Return what its method is built from; see there."""
        steps = span_steps(self.recipe, self.start)
        return Parts(epsilon=epsilon, scale=scale, directions=self.directions, span_steps=steps)

    def text(self, prompt: str) -> str:
        """Return a prompt as the tokenizer gets it: with words in the place of a LoRA."""
        return prompt if self.adapter is None else adapting.spelled(self.recipe, prompt)

    def ids(self, prompt: str) -> dict[str, NDArray[np.int64]]:
        """Return the token ids of a prompt for every text encoder."""
        text = self.text(prompt)
        return {name: t.encode(text, self.recipe.vectors) for name, t in self.tokenizers.items()}

    def constant(self) -> dict[str, Array]:
        """Return the model inputs that are the same for every sample, and for pictures."""
        if self.model.family != "sdxl":
            return {}
        side = float(required(self.recipe.resolution))
        return {"time_ids": np.array([side, side, 0, 0, side, side], np.float32)}


def sizes_of(job: TokenJob) -> tuple[tuple[int, int], ...]:
    """Return the sizes (width, height) that photos may be trained at: one, or those of buckets."""
    side = required(job.recipe.resolution)
    if not job.recipe.buckets:
        return ((side, side),)
    assert isinstance(job.model, ModelFolder), "`check` refuses artifacts, whose size is fixed"
    levels = len(job.model.configs["unet"]["block_out_channels"])
    return bucket_sizes(side, job.model.latent_scale * 2 ** (levels - 1))


def offered_sizes(job: TokenJob) -> tuple[tuple[int, int], ...]:
    """Return the sizes that `buckets` would allow where squares are trained; none if it cannot."""
    recipe = job.recipe
    if recipe.buckets or recipe.keeps_class or isinstance(job.model, Artifact):
        return ()
    return sizes_of(replace(job, recipe=replace(recipe, buckets=True)))


def check(recipe: PersonalizeRecipe) -> TokenJob:
    """Return the job that a recipe describes, with every default filled in.

    Raises:
      InputError, ModelError: a word, size or model that cannot be used.
    """
    if recipe.prior_weight != 1.0 and not recipe.keeps_class:
        raise InputError(
            f"prior_weight is {recipe.prior_weight:g}, but no pictures of the class are trained "
            "on; add --class-count 100, or --class-photos FOLDER, or leave it out."
        )
    shipped = embedded_artifact(recipe.model, recipe.runtime)
    model = _open_model(recipe.model) if shipped is None else open_artifact(shipped)
    engine = _engine(recipe, model)
    serving = _serving(engine)
    device = recipe.device  # as it was asked for
    recipe = replace(serving.fix(recipe, model), runtime=engine)
    embedded = serving.origin(recipe, model) == EMBEDDED
    recipe, named = _named_by_folders(recipe)
    recipe = adapting.settled(recipe, model, embedded=embedded)
    _check_buckets(recipe, model)
    if recipe.adapts and not hasattr(serving, "open_adapted"):
        or_a_word = "" if recipe.start else ", or --trainable token"
        raise InputError(
            f"runtime {engine!r} trains the vectors of a word only; use --runtime torch{or_a_word}."
        )
    notes = list(serving.device_notes(replace(recipe, device=device), model))
    if shipped is not None:
        notes.append(
            f"{EMBEDDED} as the {recipe.quant} artifact that comes with the program: it learns by "
            "forward passes alone, and needs no torch"
        )
    notes += named
    defaults = {
        "class_word": "object",
        "prompts": ("a photo of {}",),
        "resolution": model.resolution,
        "threads": cores(),
        **_FAMILY_DEFAULTS[EMBEDDED if embedded else model.family],
    }
    given = recipe  # rules of other methods have keys of these two names, too
    recipe = TASK.resolve(replace(recipe, rank=None, targets=None), engine, defaults)
    recipe = replace(recipe, rank=given.rank, targets=given.targets)
    if recipe.adapts:
        recipe = replace(recipe, relative_rate=None)  # the default of a word
    recipe = with_directions(_with_an_end(recipe, given), model)
    if not (words := required(recipe.class_word).split()):
        raise InputError("the class word is empty; name what is on the photos: --class dog.")
    usual = f"<my-{'-'.join(words)}>"
    recipe = replace(recipe, token=recipe.token or usual)
    side, cell = required(recipe.resolution), model.latent_scale
    if side % cell:
        raise InputError(
            f"resolution {side} is not a multiple of {cell}, the pixels in a latent cell of this "
            f"model; try {max(side // cell, 1) * cell}."
        )
    if required(recipe.window)[1] > len(model.alphas_cumprod):
        raise InputError(
            f"window {list(required(recipe.window))} goes past the model's "
            f"{len(model.alphas_cumprod)} timesteps."
        )
    if recipe.preview_steps > len(model.alphas_cumprod):
        raise InputError(
            f"preview_steps is {recipe.preview_steps}, but {recipe.model} has no more than "
            f"{len(model.alphas_cumprod)} timesteps; use as many or fewer."
        )
    captions.file_name_of(required(recipe.token))
    names = ("ids", "ids_2")[: len(model.tokenizers)]
    tokenizers = {
        name: PromptTokenizer.from_folder(folder)
        for name, folder in zip(names, model.tokenizers, strict=True)
    }
    if embedded:
        notes += _never_seen(required(recipe.class_word), model, tokenizers["ids"])
    if recipe.adapts:
        assert isinstance(model, ModelFolder), "`settled` refuses what has no gradients"
        shapes = serving.weight_shapes(model)
        adapter, blocks = adapting.adapter_of(recipe, model, shapes)
        recipe = adapting.recorded(recipe, adapter, shapes)
        notes += adapting.said_of(recipe, next(iter(tokenizers.values())))
        return _with_prompts(TokenJob(recipe, model, tokenizers, blocks, tuple(notes), adapter))
    start = {}
    for block, component, tokenizer in zip(
        ("token", "token_2"), ("text_encoder", "text_encoder_2"), tokenizers.values(), strict=False
    ):
        tokenizer.check_new_token(required(recipe.token))
        ids = tokenizer.word_ids(required(recipe.class_word))
        if not ids:
            raise InputError("the class word is empty; name what is on the photos: --class dog.")
        if len(ids) > 1 and block == "token":
            word = required(recipe.class_word)
            unknown = adapting.in_pieces(word, ids)
            said = unknown or f"class word {word!r} is {len(ids)} tokens for this model"
            notes.append(f"{said}; the new token starts from their average")
        row = model.embedding_rows(component, ids).mean(axis=0)
        start[block] = np.tile(row, (recipe.vectors, 1)).astype(np.float32)
    if recipe.start is not None:
        path = Path(recipe.start).expanduser()
        start, learned = learned_vectors(path, start, recipe.model, hashes_of(model))
        if learned < recipe.vectors:
            notes.append(
                f"{learned} of {recipe.vectors} vectors are those that were learned; the others "
                f"start as {recipe.class_word!r}"
            )
    directions = directions_of(recipe, model, start)
    notes += said_of_directions(given, recipe, start, model)
    return _with_prompts(
        TokenJob(recipe, model, tokenizers, start, tuple(notes), directions=directions)
    )


def _never_seen(word: str, model: Model, tokenizer: PromptTokenizer) -> list[str]:
    """Return a line about a class that the embedded model has as a word, and never learned."""
    ids = tokenizer.word_ids(word)
    if adapting.in_pieces(word, ids) or not ids:
        return []
    if np.linalg.norm(model.embedding_rows("text_encoder", ids), axis=1).min() >= SHORTEST_LEARNED:
        return []
    return [
        f"class word {word!r} was in no caption that {EMBEDDED} learned from and means nothing to "
        "it; one that it knows, such as 'item', starts nearer"
    ]


def _named_by_folders(recipe: PersonalizeRecipe) -> tuple[PersonalizeRecipe, list[str]]:
    """Return a recipe with the class, and of a LoRA the token, that folders of photos name.

    Also returns a line for each of them. A token that could name no file stays what it was.
    """
    notes: list[str] = []
    if not recipe.photos:
        return recipe, notes
    folder = photos_of(recipe)
    if recipe.class_word is None and (word := class_word_of(folder)):
        notes.append(f"class word {word!r}, from the names of the folders; --class says another")
        recipe = replace(recipe, class_word=word)
    if not recipe.adapts or recipe.token is not None or recipe.class_word is None:
        return recipe, notes
    if token := token_of(folder, recipe.class_word):
        with suppress(InputError):
            captions.file_name_of(token)
            recipe = replace(recipe, token=token)
            notes.append(f"token {token!r}, from the names of the folders; --token says another")
    return recipe, notes


def _with_an_end(recipe: PersonalizeRecipe, given: PersonalizeRecipe) -> PersonalizeRecipe:
    """Return a recipe that says whether it ends by noise: where nobody asked for a length.

    Args:
      given: the recipe before its defaults were filled in.

    Raises:
      InputError: it shall, and its gradients cannot tell, or have a rate with a length of its own.
    """
    exact = GRADIENT in methods.get(recipe.method).needs
    able = exact and not names_rate(recipe)
    if recipe.until_noise and not exact:
        raise InputError(
            f"until_noise reads exact gradients, and steps of {recipe.method} lie along a few "
            "random directions, which hide what they share; leave it out, and name --steps."
        )
    if recipe.until_noise and not able:
        raise InputError(
            "until_noise is of steps without a rate, and this run has one; leave out until_noise, "
            "or the rate (a LoRA and adamw have one)."
        )
    if recipe.until_noise is not None:
        return recipe
    return replace(recipe, until_noise=able and given.steps is None)


def _check_buckets(recipe: PersonalizeRecipe, model: Model) -> None:
    """Check that photos may have shapes of their own, where they shall.

    Raises:
      InputError: the model takes one size, or batches would mix shapes.
    """
    if not recipe.buckets:
        return
    if isinstance(model, Artifact):
        raise InputError(
            f"buckets are of model folders, and artifact {recipe.model} takes pictures of one "
            "size; leave it out, or name the model folder that it was exported from."
        )
    if recipe.keeps_class:
        raise InputError(
            "buckets give photos shapes of their own, and a step takes them together with square "
            "pictures of the class; leave out buckets, or class_photos and class_count."
        )


def _with_prompts(job: TokenJob) -> TokenJob:
    """Return a job whose prompts have a place for what is learned, each checked.

    Raises:
      InputError: one has none, or is too long.
    """
    prompts = tuple(prompt_of(job.recipe, prompt) for prompt in job.recipe.prompts)
    for prompt in prompts:
        job.ids(prompt)
    return replace(job, recipe=replace(job.recipe, prompts=prompts))


def _open_model(name: str) -> Model:
    path = Path(name).expanduser()
    if is_training_artifact(path):
        raise InputError(
            f"{name} is the artifact of a text classifier; add --task classify, or name another "
            "model."
        )
    return open_artifact(path) if is_artifact(path) else find_model(name)


def _engine(recipe: PersonalizeRecipe, model: Model) -> str:
    """Return the engine that was asked for; without one, the one for this kind of model.

    Where the one that was asked for does not serve this task, that of the model says so.
    """
    if recipe.runtime in TASK.all_uses():
        return recipe.runtime
    return "onnx" if isinstance(model, Artifact) else "torch"


def _serving(engine: str) -> Serving[Any]:
    return cast(Serving[Any], import_module(required(TASK.use(engine).open)))


def prompt_of(recipe: PersonalizeRecipe, text: str) -> str:
    """Return a prompt with `{}` wherever the user wrote the token or its class word.

    Raises:
      InputError: it names neither.
    """
    return captions.place(text, required(recipe.token), required(recipe.class_word))


def photos_of(recipe: PersonalizeRecipe) -> Path:
    """Return the folder of photos: the user's, or the embedded example."""
    return Path(recipe.photos).expanduser() if recipe.photos else PHOTOS


def decode_latents(job: TokenJob, latents: Array) -> Pictures:
    """Return the pictures (n, height, width, 3) of latents; the VAE comes and goes."""
    return job.serving.decode(job.recipe, job.model, latents, strips=job.vae_in_strips)


def open_runtime(
    job: TokenJob, parameters: Parameters, ids: Mapping[str, NDArray[np.int64]]
) -> Denoiser:
    """Return the runtime, with only those rows of the embedding tables that `ids` use.

    Args:
      ids: per text encoder input, every id that training and previews will need.
    """
    used = [np.unique(ids[name]) for name in job.tokenizers]
    token_ids = [own[own >= 0].tolist() for own in used]
    if job.adapter is not None:
        serving = cast(AdaptingServing[Any], job.serving)
        return serving.open_adapted(job.recipe, job.model, parameters, job.adapter, token_ids)
    return job.serving.open_runtime(job.recipe, job.model, parameters, token_ids)


def build_task(job: TokenJob, cache: PhotoCache) -> Personalize:
    """Return the task of a recipe."""
    recipe = job.recipe
    return Personalize(
        cache=cache,
        signal=job.model.alphas_cumprod,
        prediction_type=job.model.prediction_type,
        window=required(recipe.window),
        samples=required(recipe.samples),
        evaluation_samples=required(recipe.evaluation_samples),
        constant=job.constant(),
        snr_gamma=recipe.snr_gamma,
        prior_weight=recipe.prior_weight,
    )
