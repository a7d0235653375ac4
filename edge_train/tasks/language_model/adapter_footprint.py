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
    state_line,
)
from edge_train.methods import methods
from edge_train.optim.low_rank import is_embedding
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.runtimes.numpy.language_model import sequences_per_call
from edge_train.runtimes.torch.calls import LEAN_LOGITS, LOGITS_AT_ONCE, SEQUENCES_PER_CALL
from edge_train.tasks.language_model import TASK
from edge_train.tasks.language_model.footprint import (
    Shapes,
    held_as,
    held_out_sequences,
    operations_of,
    width_of,
)
from edge_train.tasks.language_model.numpy_bytes import differentiating, judging
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

_BUFFERS = 2 * 4 * (1 << 21)  # rows of a matrix in float32, and once more in another order
_DIFFERENTIATED = 3  # what a layer's products take and give, with errors of it and attention's
_UPDATE_COPIES = 4  # a direction, the sum of all, and what the rule makes of it
_CAPPED = 4  # copies of logits that a network changes before they are used


def adapter_footprint(
    recipe: LanguageModelRecipe,
    model: LanguageFolder,
    shapes: Shapes,
    adapter: Adapter,
    transform: Transform,
    *,
    text_bytes: int,
    opened: str,
) -> Footprint:
    """Return what a run holds, without loading the model.

    Args:
      shapes: of every block of the base.
      text_bytes: of the ids that are kept of the text, at most.
      opened: why the network had to be opened to know its blocks.
    """
    use = TASK.use(recipe.runtime)
    trained = adapter.shapes()
    numbers = sum(map(math.prod, trained.values()))
    on_numpy = recipe.runtime == "numpy"
    in_file = recipe.quant == "none" and (model.made is not None or recipe.lean or on_numpy)
    base = sum(
        held_as(recipe.quant).block_bytes(shape)
        for shape in shapes.values()
        if not (in_file and len(shape) > 1 and model.files)
    )
    held = [
        PlanLine("frozen weights", base),
        PlanLine("adapter", 4 * numbers),
        state_line(transform, trained, copies=0),
    ]
    if recipe.clip is not None:
        held.append(PlanLine("gradients of the adapter", 4 * numbers))
    length, samples = required(recipe.length), required(recipe.samples)
    at_once = length * min(recipe.micro_batch or samples, samples)
    some = min(recipe.micro_batch or SEQUENCES_PER_CALL, SEQUENCES_PER_CALL)
    together = recipe.batch_limit or some
    layers, width = layers_of(model.config), width_of(shapes)
    inside = sum(sum(s) for n, s in shapes.items() if len(s) > 1 and not is_embedding(n))
    kept = 4 * at_once * (layers * width + _DIFFERENTIATED * inside // layers)
    scored = 4 * together * length * (width + inside // layers)
    trains = kept + _logits_bytes(recipe, model, at_once) + _BUFFERS
    judges = scored + _logits_bytes(recipe, model, together * length) + _BUFFERS
    if on_numpy:
        threads = required(recipe.threads)
        together = recipe.batch_limit or recipe.micro_batch or sequences_per_call(length)
        trains = differentiating(model, shapes, length, at_once, threads)
        judges = judging(model, shapes, length, together * length, threads)
    if methods.get(recipe.method).perturbs:  # a step is forward passes, and a block's update
        largest = max(map(math.prod, trained.values()))
        trains = judges + 4 * largest * (_UPDATE_COPIES + 2 * together)
    return Footprint(
        use.libraries,
        base,
        {PREPARE: (), TRAIN: tuple(held), SAVE: tuple(held)},
        {TRAIN: max(trains, judges), SAVE: judges},
        use.first_use_bytes,
        use.libraries_bytes,
        operations_of(recipe, shapes, model.vocabulary, layers),
        products=sum(len(shape) > 1 for shape in shapes.values()),
        together=together,
        after=held_out_sequences(recipe, model, text_bytes),
        trained=numbers,
        opened=opened,
        folder=folder_lines(
            len(trained),
            4 * numbers,
            state_line(transform, trained, 0).bytes,
            text_bytes,
            4 * numbers * (2 if leaves_gguf(model, adapter) else 1),
        ),
    )


def leaves_gguf(model: LanguageFolder, adapter: Adapter) -> bool:
    """Return whether a run leaves `adapter.gguf` beside the folder of its adapter."""
    return model.made is not None and adapter.kind == "lora"


def _logits_bytes(recipe: LanguageModelRecipe, model: LanguageFolder, tokens: int) -> int:
    """Return what the logits of so many tokens take that exist at once."""
    most = LEAN_LOGITS if recipe.lean else LOGITS_AT_ONCE
    count = min(tokens * model.vocabulary, max(most, model.vocabulary))
    if model.config.get("final_logit_softcapping"):
        count = min(_CAPPED * tokens * model.vocabulary, max(most, _CAPPED * model.vocabulary))
    return int(np.float32().itemsize * count)
