"""What personalizing a token holds: headers of weight files, and activations as measured."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    state_line,
)
from edge_train.methods import held_at_once, methods
from edge_train.methods.exact import names_rate
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.tasks.personalize import TASK
from edge_train.tasks.personalize.parts import TokenJob, photos_of
from edge_train.tasks.personalize.photos import MAX_PHOTOS
from edge_train.tasks.personalize.pictures import JUDGED
from edge_train.tasks.personalize.prior import missing
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.serving import Call

Shape = tuple[int, ...]

_PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.(downsamplers|upsamplers)?")
_ONCE = ("time_emb", "add_embedding")  # of a picture, whatever its size
_LOOKED_UP = ("token_embedding", "position_embedding")
# Bytes of activations of the VAE, per pixel and channel of its first level, in items of float32.
_ENCODE_ITEMS, _DECODE_ITEMS = 5.0, 9.0
# In strips: one whole map of the first level and what a few strips need; 272 and 303 MB were held
# at 512 pixels, of which 91 MB were interpreter, engine and mapped files.
_STRIP_ITEMS = 1.6
# Of weights that stay in their file no more has to be resident than a pass reads between two times
# that they are let go; a run holds more of them where its cap leaves room.
_WINDOW_BYTES = 64_000_000
_CELLS_PER_CALL, _SAMPLES_PER_CALL = 4_096, 64  # as the runtimes choose
_PIXELS_PER_CALL = 65_536
_COPIES = 4  # of the trained blocks: live, best, the last good ones, the update
# What a LoRA touches at its first pass beside what a word does; runs held 2 to 17 MB more.
_FIRST_USE_OF_ADAPTERS = 25_000_000
_COPIES_OF_ADAPTERS = 3  # more, of all blocks at once: drawn ones, sums of gradients, one call's


def footprint(job: TokenJob, transform: Transform) -> Footprint:
    """Return what training and drawing hold.

    Args:
      transform: the chain of the method, for the bytes of its state.
    """
    recipe, model, serving = job.recipe, job.model, job.serving
    use = TASK.use(recipe.runtime)
    weights = serving.weight_bytes(recipe, model)
    step = _line("weights", weights.step, mapped=recipe.lean)
    in_file = serving.vae_stays_in_file(recipe, model)
    copies = _COPIES + (recipe.queries or 0) * (recipe.sides or 1)
    if job.adapter is not None:
        copies += _COPIES_OF_ADAPTERS + (recipe.clip is not None)  # a clipped step keeps gradients
    shapes = {name: block.shape for name, block in job.start.items()}
    state = state_line(transform, shapes, copies, held_at_once(recipe))
    encoder = _line("VAE's encoder", weights.encoder, mapped=in_file)
    decoder = _line("VAE's decoder", weights.decoder, mapped=in_file)
    denoiser: tuple[PlanLine, ...] = (step,)
    if weights.rewritten:
        denoiser += (PlanLine("weights (rewritten for this processor)", weights.rewritten),)
    # a lean run lets go of the denoiser before it decodes
    saved = (state, decoder) if recipe.lean else (*denoiser, state, decoder)
    draws_class = recipe.keeps_class and missing(recipe) > 0
    prepare = (*denoiser, encoder) if draws_class else (encoder,)
    train = (*denoiser, state, *_answers(job))
    known = {PREPARE: prepare, TRAIN: train, SAVE: saved}
    return Footprint(
        use.libraries,
        serving.stored_bytes(model),
        known,
        _activations(job, weights.step),
        use.first_use_bytes + (_FIRST_USE_OF_ADAPTERS if job.adapter is not None else 0),
        use.libraries_bytes,
        _counted(job, denoiser_operations),
        moved=_counted(job, denoiser_numbers),
        products=sum(len(shape) > 1 for shape in serving.weight_shapes(model).values()),
        together=_together(job),
        before=2 * recipe.preview_steps * missing(recipe) if recipe.keeps_class else 0,
        beside=2 if recipe.keeps_class else 1,  # as many pictures of the class as photos
        after=_drawn_samples(job),
        trained=sum(map(math.prod, shapes.values())),
        mapped_bytes=weights.step if recipe.lean else 0,
        folder=folder_lines(
            len(shapes),
            4 * sum(map(math.prod, shapes.values())),
            state_line(transform, shapes, 0, held_at_once(recipe)).bytes,
            *_folder_bytes(job),
        ),
    )


def _answers(job: TokenJob) -> tuple[PlanLine, ...]:
    """Return the line of what a step keeps of the model's answers; none where losses are enough.

    One at every point in float32, and three of a batch in float64 while they are multiplied.
    """
    recipe = job.recipe
    if not methods.get(recipe.method).perturbs or names_rate(recipe):
        return ()
    side = required(recipe.resolution) // job.model.latent_scale
    answer = recipe.step_samples * job.model.latent_channels * side * side
    points = required(recipe.queries) * 2 if recipe.sides == 2 else required(recipe.queries) + 1
    return (PlanLine("answers of a step", answer * (4 * points + 3 * 8)),)


def _folder_bytes(job: TokenJob) -> tuple[int, int]:
    """Return what the run folder keeps of the photos, and of pictures and the token.

    A photo is kept as a picture, and as mean and deviation of its latents, mirrored too. Pictures
    of noise, the largest there are, take as much as their pixels and a hundredth more.
    """
    recipe = job.recipe
    side = required(recipe.resolution)
    picture = 1.01 * 3 * side * side + 1000
    try:
        photos = min(sum(path.is_file() for path in photos_of(recipe).iterdir()), MAX_PHOTOS)
    except OSError:
        photos = MAX_PHOTOS  # `load` says what is wrong with them
    latents = 2 * 4 * job.model.latent_channels * (side // job.model.latent_scale) ** 2
    drawn = 2
    if recipe.preview_every:
        drawn += (recipe.steps or 0) // recipe.preview_every
    pictures = drawn * len(recipe.prompts) if recipe.previews else 0
    vectors = 4 * sum(map(math.prod, (block.shape for block in job.start.values())))
    kept = photos * (picture + latents * (1 + recipe.flips))
    return int(kept), int(pictures * picture) + vectors


def _counted(job: TokenJob, count: Callable[[Mapping[str, Shape], int, int], float]) -> float:
    """Return what is counted of one sample's pass through text encoders and U-Net."""
    model = job.model
    cells = ((job.recipe.resolution or model.resolution) // model.latent_scale) ** 2
    return count(job.serving.weight_shapes(model), cells, model.prompt_tokens)


def _together(job: TokenJob) -> int:
    """Return how many samples the denoiser takes in one call at most."""
    cells = ((job.recipe.resolution or job.model.resolution) // job.model.latent_scale) ** 2
    together = max(1, min(_SAMPLES_PER_CALL, _CELLS_PER_CALL // cells))
    return min(together, job.recipe.batch_limit or together)


def _drawn_samples(job: TokenJob) -> int:
    """Return the samples that pass while pictures are drawn, each with and without its prompt."""
    recipe = job.recipe
    if not recipe.previews:
        return 0
    pictures = 2 * len(recipe.prompts) + (JUDGED if job.judged else 0)
    if recipe.preview_every:
        pictures += len(recipe.prompts) * ((recipe.steps or 0) // recipe.preview_every)
    return 2 * recipe.preview_steps * pictures


def _line(name: str, count: int, *, mapped: bool) -> PlanLine:
    """Return the line of weights that are loaded, or stay mapped in their file."""
    if mapped:
        return PlanLine(f"{name} (left in the file)", min(count, _WINDOW_BYTES))
    return PlanLine(name, count)


def _activations(job: TokenJob, step_bytes: int) -> dict[str, int]:
    """Return the bytes of activations by phase, from constants above and of the engine.

    Those of the square: no size of `buckets.bucket_sizes` has more cells.
    """
    model, recipe = job.model, job.recipe
    side = recipe.resolution or model.resolution
    cells = (side // model.latent_scale) ** 2
    together = max(1, min(_SAMPLES_PER_CALL, _CELLS_PER_CALL // cells))
    samples = min(together, recipe.batch_limit or together, _most_samples(recipe))
    pictures = min(max(1, _PIXELS_PER_CALL // side**2), recipe.batch_limit or _SAMPLES_PER_CALL)
    call = Call(cells, together, samples)
    train, draw = job.serving.activation_bytes(recipe, model, call, step_bytes)
    if job.judged:  # many pictures are drawn at once to be scored, each with and without its prompt
        many = replace(call, samples=min(together, recipe.batch_limit or together, 2 * JUDGED))
        _, draw = job.serving.activation_bytes(recipe, model, many, step_bytes)
    encode, decode = _ENCODE_ITEMS, _DECODE_ITEMS
    if job.vae_in_strips:
        encode = decode = _STRIP_ITEMS
        pictures = 1
    pixels = 4 * side * side * job.serving.vae_width(recipe, model) * pictures
    drawing = int(max(decode * pixels, draw))
    prepare = int(encode * pixels)
    if recipe.keeps_class and missing(recipe):
        prepare = max(prepare, drawing)
    return {PREPARE: prepare, TRAIN: train, SAVE: drawing if recipe.previews else 0}


def _most_samples(recipe: PersonalizeRecipe) -> int:
    """Return how many samples the largest call could have: that of the evaluation, or a step."""
    step = recipe.step_samples * ((recipe.queries or 0) * (recipe.sides or 1) + 1)
    return max(recipe.evaluation_samples or 1, step)


def denoiser_operations(shapes: Mapping[str, Shape], cells: int, prompt_tokens: int) -> float:
    """Return floating-point operations of one sample's pass through text encoder and U-Net.

    Args:
      shapes: of matrices and filters, by their names in a diffusers folder, `text_encoder.` or
        `unet.` first. Any layout: only the product of the sides counts, and the shorter side of an
        attention's query.
      cells: of the latent picture.
      prompt_tokens: of a prompt.
    """
    products = 0.0
    for name, shape, places in _layers(shapes, cells, prompt_tokens):
        products += places * math.prod(shape)
        if ".to_q." in name:  # two products with every other place, or with every token
            others = places if "attn1" in name else prompt_tokens
            products += 2 * places * others * min(shape)
    return 2 * products


def denoiser_numbers(shapes: Mapping[str, Shape], cells: int, prompt_tokens: int) -> float:
    """Return the numbers that go into the layers of `denoiser_operations` and come out of them.

    A layer's two longest sides are its inputs and outputs. Scores of attention are left out.
    """
    layers = _layers(shapes, cells, prompt_tokens)
    return sum(places * sum(sorted(shape)[-2:]) for _, shape, places in layers)


def _layers(
    shapes: Mapping[str, Shape], cells: int, prompt_tokens: int
) -> Iterator[tuple[str, Shape, int]]:
    """Yield name and shape of every layer that multiplies, and at how many places it does."""
    places_of = filter(None, map(_PLACE.search, shapes))
    levels = 1 + max((int(found[2]) for found in places_of if found[1] == "down"), default=0)
    for name, shape in shapes.items():
        if len(shape) < 2 or any(word in name for word in _LOOKED_UP):
            continue
        if name.startswith("text_encoder"):
            places = prompt_tokens
        elif any(word in name for word in _ONCE):
            places = 1
        elif "attn2.to_k" in name or "attn2.to_v" in name:
            places = prompt_tokens
        else:
            places = max(cells // 4 ** _level(name, levels), 1)
        yield name, shape, places


def _level(name: str, levels: int) -> int:
    """Return how often the picture is halved where a layer of a U-Net works."""
    if "mid_block" in name:
        return levels - 1
    found = _PLACE.search(name)
    if found is None:
        return 0
    level = int(found[2]) if found[1] == "down" else levels - 1 - int(found[2])
    return level + {"downsamplers": 1, "upsamplers": -1}.get(found[3] or "", 0)
