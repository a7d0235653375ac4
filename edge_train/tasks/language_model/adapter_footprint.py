"""What a run of task language-model holds that trains an adapter, counted from shapes alone."""

import math

import numpy as np

from edge_train.formats.adapter import Adapter
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.transformers_folder import layers_of
from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    lines_of,
    state_line,
)
from edge_train.methods import held_at_once, methods
from edge_train.methods.method import TOKENS
from edge_train.optim.low_rank import is_embedding
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.runtimes.numpy.language_model import MEMORY_STEP, sequences_per_call
from edge_train.runtimes.torch.calls import BFLOAT16_BYTES, SEQUENCES_PER_CALL, WORDS_AT_ONCE
from edge_train.tasks.language_model import TASK
from edge_train.tasks.language_model.adapting import ROUNDED_FROM
from edge_train.tasks.language_model.continuing import WRITTEN
from edge_train.tasks.language_model.footprint import (
    Shapes,
    choosing_bytes,
    held_as,
    is_changed,
    judged_sequences,
    logits_bytes,
    operations_of,
    width_of,
)
from edge_train.tasks.language_model.halves import MOST_SCORED
from edge_train.tasks.language_model.numpy_bytes import differentiating, judging
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.language_model.writing_bytes import writing_bytes

# Rows of a matrix in float32, once more in another order, and once more in the type of products.
_BUFFERS = {"float32": 2 * 4 * (1 << 21), "bfloat16": (2 * 4 + 2) * (1 << 21)}
_BACKWARD = 2  # forward passes: layers once more, and errors at their inputs; weights get none
_DIFFERENTIATED = 3  # what a layer's products take and give, with errors of it and attention's
# Times what a step of several sequences holds, with what the heap keeps of it: 1.7 was measured of
# 8 sequences of 64 tokens and of 4 of 256 (SmolLM2-135M); 1.1 of one of 512.
_HOLES = 1.75
_UPDATE_COPIES = 4  # a direction, the sum of all, and what the rule makes of it


def adapter_footprint(
    recipe: LanguageModelRecipe,
    model: LanguageFolder,
    shapes: Shapes,
    adapter: Adapter,
    transform: Transform,
    *,
    text_bytes: int,
    opened: str,
    prompt: tuple[int, ...] | None = None,
) -> Footprint:
    """Return what a run holds, without loading the model.

    Args:
      shapes: of every block of the base.
      text_bytes: of the ids that are kept of the text, at most.
      opened: why the network had to be opened to know its blocks.
      prompt: shape of a prompt that is trained in the adapter's place.
    """
    use = TASK.use(recipe.runtime)
    trained = adapter.shapes() if prompt is None else {"prompt": prompt}
    numbers = sum(map(math.prod, trained.values()))
    on_numpy = recipe.runtime == "numpy"
    in_file = recipe.quant == "none" and (model.made is not None or recipe.lean or on_numpy)
    base = sum(
        _held_bytes(recipe, shape)
        for shape in shapes.values()
        if not (in_file and len(shape) > 1 and model.files)
    )
    if recipe.device != "cpu" and in_file and not recipe.lean:  # on the card, in its own blocks
        base += sum(file.path.stat().st_size for file in model.files)
    buffers = _BUFFERS[recipe.dtype]
    held = [
        PlanLine("frozen weights", base),
        PlanLine("adapter" if prompt is None else "prompt", 4 * numbers),
        state_line(transform, trained, 0, held_at_once(recipe)),
    ]
    if recipe.clip is not None:
        held.append(PlanLine("gradients of the adapter", 4 * numbers))
    chooses = choosing_bytes(recipe, shapes)
    length, samples = required(recipe.length), required(recipe.samples)
    at_once = length * min(recipe.micro_batch or samples, samples)
    some = min(recipe.micro_batch or SEQUENCES_PER_CALL, SEQUENCES_PER_CALL)
    together = recipe.batch_limit or some
    layers, width = layers_of(model.config), width_of(shapes)
    inside = sum(sum(s) for n, s in shapes.items() if len(s) > 1 and not is_embedding(n))
    kept = 4 * at_once * (layers * width + _DIFFERENTIATED * inside // layers)
    if at_once > length and not recipe.lean:
        kept = int(kept * _HOLES)
    scored = 4 * together * length * (width + inside // layers)
    trains = kept + _losses_bytes(recipe, model, at_once, width) + buffers
    judges = scored + _losses_bytes(recipe, model, together * length, width) + buffers
    if on_numpy:
        threads = required(recipe.threads)
        together = recipe.batch_limit or recipe.micro_batch or sequences_per_call(length)
        trains = differentiating(model, shapes, length, at_once, threads)
        judges = judging(model, shapes, length, together * length, threads)
    step = MEMORY_STEP if on_numpy else 1
    writes = buffers + writing_bytes(model.config, layers, width, inside // layers, length, step)
    judges = max(judges, writes)
    judged = judged_sequences(recipe, model, text_bytes)
    if TOKENS in methods.get(recipe.method).needs:  # a step is forward passes
        trains = judges
    if methods.get(recipe.method).perturbs:  # a step is forward passes, and a block's update
        largest = max(map(math.prod, trained.values()))
        trains = judges + 4 * largest * (_UPDATE_COPIES + 2 * together)
    return Footprint(
        use.libraries,
        base,
        {
            PREPARE: (),
            TRAIN: (*held, *lines_of(PlanLine("batch selection", chooses.all))),
            SAVE: tuple(held),
        },
        {TRAIN: max(trains, judges), SAVE: judges},
        use.first_use_bytes + (BFLOAT16_BYTES if recipe.dtype == "bfloat16" else 0),
        use.libraries_bytes,
        operations_of(recipe, shapes, model.vocabulary, layers),
        products=sum(len(shape) > 1 for shape in shapes.values()),
        together=together,
        evaluated=judged,
        after=min(judged, MOST_SCORED),
        written=WRITTEN,
        backward=_BACKWARD,
        trained=numbers,
        opened=opened,
        folder=folder_lines(
            len(trained),
            4 * numbers,
            state_line(transform, trained, 0, held_at_once(recipe)).bytes + chooses.kept,
            text_bytes,
            4 * numbers * (2 if leaves_gguf(model, adapter) else 1),
        ),
    )


def _held_bytes(recipe: LanguageModelRecipe, shape: tuple[int, ...]) -> int:
    """Return the bytes of a frozen block: matrices of float32 are held in the type of products."""
    if recipe.quant == "none" and recipe.dtype == "bfloat16" and len(shape) > 1:
        return 2 * math.prod(shape)
    return held_as(recipe.quant).block_bytes(shape)


def leaves_gguf(model: LanguageFolder, adapter: Adapter) -> bool:
    """Return whether a run leaves `adapter.gguf` beside the folder of its adapter."""
    return model.made is not None and adapter.kind == "lora"


def _losses_bytes(
    recipe: LanguageModelRecipe, model: LanguageFolder, tokens: int, width: int
) -> int:
    """Return what losses of so many tokens take: logits, or some of all tokens and two slopes."""
    logits = logits_bytes(recipe, model, tokens)
    whole = np.float32().itemsize * tokens * model.vocabulary
    if recipe.rules < ROUNDED_FROM or is_changed(model) or logits >= whole:
        return logits
    return np.float32().itemsize * (WORDS_AT_ONCE + 2 * tokens * width)
