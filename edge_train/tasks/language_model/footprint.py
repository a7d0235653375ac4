"""What a run of task language-model holds, counted from shapes alone."""

import math
from collections.abc import Mapping

import numpy as np

from edge_train.arrays.factored import AHEAD_NUMBERS
from edge_train.arrays.parameters import Parameters
from edge_train.export.difference import workspace_bytes
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.language_shapes import heads_of
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
from edge_train.methods import held_at_once, methods, selection_bytes
from edge_train.methods.choosing import Held
from edge_train.methods.exact import projects_head
from edge_train.optim.low_rank import is_embedding, is_projected
from edge_train.optim.sums import held_numbers, looked_up_numbers, remade_numbers
from edge_train.protocols import Transform
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.registry import load
from edge_train.runtimes.torch.calls import (
    BFLOAT16_BYTES,
    LEAN_LOGITS,
    LOGITS_AT_ONCE,
    SEQUENCES_PER_CALL,
)
from edge_train.tasks.language_model import TASK
from edge_train.tasks.language_model.continuing import WRITTEN
from edge_train.tasks.language_model.halves import MOST_SCORED
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.language_model.token_stream import id_type
from edge_train.tasks.language_model.writing_bytes import writing_bytes

Shapes = Mapping[str, tuple[int, ...]]

_BUFFER_BYTES = 16_000_000  # weights in float32 at once, and rows of an update
_ROUNDED_BYTES = 2 * (1 << 21)  # weights in bfloat16 at once
_BYTES_PER_TOKEN = 4  # of a text, about
_HELD_OUT_SHARE = 0.1
_CAPPED = 4  # copies of logits that a network changes before they are used
# Where a configuration says that it does: Gemma 2, Command R, Granite, Falcon-H1.
_CHANGED_BY = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
_MADE = 3  # times errors that are made: with the weights that they are made from, or scaled
_HOLES = 2.5  # times what a step holds, with what the heap keeps of it; 2 and 2.1 were measured


def footprint_of(
    recipe: LanguageModelRecipe,
    model: LanguageFolder,
    shapes: Shapes,
    transform: Transform,
    *,
    text_bytes: int,
    result_bytes: int,
    opened: str,
) -> Footprint:
    """Return what a run that changes all weights holds, without loading the model.

    Args:
      shapes: of every block of the model.
      text_bytes: of the ids that are kept of the text, at most.
      result_bytes: of what it leaves in its folder.
      opened: why the network had to be opened to know its blocks.
    """
    use = TASK.use(recipe.runtime)
    weights = sum(held_as(recipe.quant).block_bytes(shape) for shape in shapes.values())
    held = (PlanLine("weights", weights), state_line(transform, shapes, 0, held_at_once(recipe)))
    at_once = min(recipe.micro_batch or required(recipe.samples), required(recipe.samples))
    sums = PlanLine("sums of a step's parts", _sums_bytes(recipe, shapes, model.vocabulary))
    chooses = choosing_bytes(recipe, shapes)
    tokens = at_once * required(recipe.length)
    layers = layers_of(model.config)
    width = width_of(shapes)
    inside = sum(sum(s) for n, s in shapes.items() if len(s) > 1 and not is_embedding(n))
    logits = logits_bytes(recipe, model, tokens)
    ahead = min(AHEAD_NUMBERS, tokens * model.vocabulary)
    if methods.get(recipe.method).projects and projects_head(recipe):
        ahead = tokens * model.vocabulary
    errors = 4 * (_MADE * ahead + tokens * width)
    kept = 4 * tokens * (layers * width + 2 * inside // layers) + logits + errors + _BUFFER_BYTES
    if recipe.dtype == "bfloat16":  # and the inputs or errors of a product once more
        kept += _ROUNDED_BYTES + max(logits // 2, 2 * tokens * inside // layers)
    if not recipe.lean:
        kept = int(kept * _HOLES)
    some = min(recipe.micro_batch or SEQUENCES_PER_CALL, SEQUENCES_PER_CALL)
    in_a_call = required(recipe.length) * (recipe.batch_limit or some)
    scored = 4 * in_a_call * (2 * width + inside // layers) + logits_bytes(recipe, model, in_a_call)
    judged = judged_sequences(recipe, model, text_bytes)
    writes = writing_bytes(model.config, layers, width, inside // layers, required(recipe.length))
    saved = max(scored, writes)
    if recipe.difference_rank is not None:
        saved = max(saved, workspace_bytes(recipe.difference_rank, shapes))
    return Footprint(
        use.libraries,
        weights,
        {
            PREPARE: (),
            TRAIN: (*held, *lines_of(sums, PlanLine("batch selection", chooses.all))),
            SAVE: held,
        },
        {TRAIN: max(kept, scored, writes), SAVE: saved},
        use.first_use_bytes + (BFLOAT16_BYTES if recipe.dtype == "bfloat16" else 0),
        use.libraries_bytes,
        operations_of(recipe, shapes, model.vocabulary, layers),
        products=sum(len(shape) > 1 for shape in shapes.values()),
        together=recipe.batch_limit or some,
        evaluated=judged,
        after=min(judged, MOST_SCORED),
        written=WRITTEN,
        trained=sum(map(math.prod, shapes.values())),
        opened=opened,
        folder=folder_lines(
            len(shapes),
            weights,
            state_line(transform, shapes, 0, held_at_once(recipe)).bytes + chooses.kept,
            text_bytes,
            result_bytes,
            max((file.path.stat().st_size for file in model.rewritten), default=None),
        ),
    )


def choosing_bytes(recipe: LanguageModelRecipe, shapes: Shapes) -> Held:
    """Return the bytes of a batch selection, whose layer is as wide as hidden states."""
    width = width_of(shapes)
    return selection_bytes(recipe, (width, width), required(recipe.length))


def logits_bytes(recipe: LanguageModelRecipe, model: LanguageFolder, tokens: int) -> int:
    """Return what the logits of so many tokens take that exist at once."""
    most = LEAN_LOGITS if recipe.lean else LOGITS_AT_ONCE
    count = min(tokens * model.vocabulary, max(most, model.vocabulary))
    if is_changed(model):
        count = min(_CAPPED * tokens * model.vocabulary, max(most, _CAPPED * model.vocabulary))
    return int(np.float32().itemsize * count)


def is_changed(model: LanguageFolder) -> bool:
    """Return whether a network does something to the outputs of its head."""
    return any(model.config.get(name) for name in _CHANGED_BY)


def judged_sequences(recipe: LanguageModelRecipe, model: LanguageFolder, text_bytes: int) -> int:
    """Return about how many sequences choose the best weights, and as many are scored at the end.

    A tenth of the text is held out, in two halves; one sequence there always is.
    """
    tokens = text_bytes // np.dtype(id_type(model.vocabulary)).itemsize / _BYTES_PER_TOKEN
    count: int = math.ceil(tokens * _HELD_OUT_SHARE / 2 / required(recipe.length))
    return max(1, count)


def held_as(quant: str) -> type[Parameters]:
    """Return the kind of parameters that hold weights in training."""
    kind: type[Parameters] = load(required(quants.get(quant).trained))
    return kind


def operations_of(
    recipe: LanguageModelRecipe, shapes: Mapping[str, tuple[int, ...]], vocabulary: int, layers: int
) -> int:
    """Return the operations of a sequence's forward pass: layers, attention and the last one."""
    inside = [s for n, s in shapes.items() if len(s) > 1 and not is_embedding(n)]
    width = width_of(shapes)
    length = required(recipe.length)
    products = sum(math.prod(s) for s in inside) + 2 * layers * length * width
    if not _has_head(shapes, vocabulary):
        products += vocabulary * width  # the table of the words is the last layer, too
    return int(2 * length * products)


def width_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the numbers of a token's vector: the shorter side of the largest table."""
    tables = [s for n, s in shapes.items() if len(s) > 1 and is_embedding(n)]
    return min(max(tables or [s for s in shapes.values() if len(s) > 1], key=math.prod))


def _has_head(shapes: Mapping[str, tuple[int, ...]], vocabulary: int) -> bool:
    """Return whether the output layer is a matrix of its own, and not the table of words."""
    return any(vocabulary in s for n, s in shapes.items() if len(s) > 1 and not is_embedding(n))


def _sums_bytes(
    recipe: LanguageModelRecipe, shapes: Mapping[str, tuple[int, ...]], vocabulary: int
) -> int:
    """Return the bytes held between the parts of a step: projections, factors or gradients."""
    if recipe.micro_batch is None or recipe.micro_batch >= required(recipe.samples):
        return 0
    total, tokens = 0, required(recipe.samples) * required(recipe.length)
    method = methods.get(recipe.method)
    heads = heads_of(shapes, vocabulary)
    apart = frozenset[str]() if projects_head(recipe) else heads
    for name, shape in shapes.items():
        if len(shape) == 2 and is_embedding(name):
            is_output = shape[0] == vocabulary and not _has_head(shapes, vocabulary)
            total += 4 * looked_up_numbers((shape[0], shape[1]), tokens, is_output=is_output)
        elif len(shape) == 1:
            total += 4 * shape[0]
        elif method.projects and name not in apart and is_projected(shape, required(recipe.rank)):
            total += 4 * (max(shape) * required(recipe.rank) + shape[0] * method.row_sums)
        elif name in heads:
            total += 4 * remade_numbers(shape, tokens)
        else:
            total += 4 * held_numbers(shape, tokens)
    return total
