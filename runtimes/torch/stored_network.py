"""Where the files of a model folder hold the tensors of a network: the one reader of both tasks.

Published files call a tensor by names that differ from those of today's networks: without the name
of the encoder, with gamma and beta, with one tensor an expert. transformers converts them while it
loads, and its own table of conversions is asked here, so that what it loads is what we load. A
tensor is then found, not read: rows of it are read when they are asked for.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_train.errors import ModelError
from edge_train.formats.stored_blocks import Merged, Slices, Source, Stored, StoredNetwork
from edge_train.formats.tensor_file import StoredTensor, WeightFile

_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
_COMPARED_BYTES = 1 << 22  # of two tensors at once


def look_up(
    network: Any, files: Sequence[WeightFile], folder: Path, without: Collection[str] = ()
) -> StoredNetwork:
    """Return where the files hold a network; nothing of a tensor is read, but where two are tied.

    Args:
      network: a transformers model; its parameters may be without memory.
      folder: for messages.
      without: parameters that are missing whatever the files hold: a head of other classes.

    Raises:
      ModelError: a tensor has another shape than the network, or is no float.
    """
    tensors = {name: StoredTensor(file, name) for file in files for name in file.entries}
    named = _named(network, list(tensors))
    state = dict(network.state_dict(keep_vars=True))
    found: dict[str, Stored] = {}
    for name, known in named.items():
        wanted = tuple(state[name].shape)
        if name in without:
            continue
        if isinstance(known, str):
            found[name] = _checked(tensors[known], name, wanted, folder)
        else:
            found[name] = _merged([[tensors[n] for n in part] for part in known], name, wanted)
    places, sources = {}, {}
    for name, read_at in _blocks(network, found).items():
        places[name] = read_at
        stored = [found[place] for place in read_at if place in found]
        if stored:
            copies = (one for one in stored[1:] if isinstance(one, StoredTensor))
            sources[name] = Source(stored[0], tuple(copies))
            _refuse_integers(found, read_at, folder)
    parameters = {place for read_at in places.values() for place in read_at}
    buffers = {name: value for name, value in found.items() if name not in parameters}
    return StoredNetwork(places, sources, buffers)


def load_buffers(network: nn.Module, stored: StoredNetwork) -> None:
    """Give the network the numbers that its folder holds and nothing trains."""
    for name, value in stored.buffers.items():
        buffer: Tensor = network.get_buffer(name)
        if buffer.is_floating_point():
            buffer.copy_(torch.from_numpy(np.asarray(value)))


def refuse_missing(stored: StoredNetwork, folder: Path, new: Collection[str] = ()) -> None:
    """Refuse a folder that lacks blocks.

    Args:
      new: those that a run makes anew.

    Raises:
      ModelError: another one is not stored.
    """
    lacking = [name for name in stored.missing if name not in new]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ModelError(
            f"{folder}: no tensor {lacking[0]!r}{more}, which the configuration asks for; copy or "
            "download the model again."
        )


def _spelled(name: str, prefix: str) -> Iterator[str]:
    """Yield what files may call a parameter: today's name, older ones, a plain encoder's."""
    for one in (name, name.removeprefix(f"{prefix}.")):
        yield one
        for new, old in _OLD_NAMES.items():
            if one.endswith(new):
                yield one.removesuffix(new) + old


def _named(network: Any, stored: Sequence[str]) -> dict[str, str | list[list[str]]]:
    """Return what files call each tensor of a network: a name, or the names of all its pieces."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )
    except ImportError:  # transformers 4 renames in the code of each kind
        return _named_by_spelling(network, stored)
    state = network.state_dict()
    table = get_model_conversion_mapping(network)
    renamings = [one for one in table if isinstance(one, WeightRenaming)]
    converters = [one for one in table if isinstance(one, WeightConverter)]
    prefix = str(network.base_model_prefix)
    found: dict[str, str | list[list[str]]] = {}
    pieces: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(stored, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:  # in today's names already
            renamed, pattern = name, None
        if renamed not in state:
            continue
        if pattern is None:
            found.setdefault(renamed, name)
        else:
            pieces[renamed][pattern].append(name)
    for name, by_pattern in pieces.items():
        [converter] = [c for c in converters if set(by_pattern) <= set(c.source_patterns)]
        _check_merge(name, converter)
        found[name] = [by_pattern[p] for p in converter.source_patterns if p in by_pattern]
    return found


def _named_by_spelling(network: Any, stored: Sequence[str]) -> dict[str, str | list[list[str]]]:
    names, prefix = set(stored), str(network.base_model_prefix)
    found: dict[str, str | list[list[str]]] = {}
    for name in network.state_dict():
        known = next((one for one in _spelled(name, prefix) if one in names), None)
        if known is not None:
            found[name] = known
    return found


def _check_merge(name: str, converter: Any) -> None:
    """Refuse a conversion that is more than experts one after the other.

    Raises:
      ModelError: as described.
    """
    steps = [(type(one).__name__, getattr(one, "dim", None)) for one in converter.operations]
    if steps not in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]):
        words = ", ".join(step for step, _ in steps)
        raise ModelError(
            f"{name!r} of this network is made of stored tensors by {words}, which edge-train does "
            "not do; load the folder in transformers and save it with "
            "`save_pretrained(DIR, save_original_format=False)`, then name that folder."
        )


def _merged(parts: list[list[StoredTensor]], name: str, wanted: tuple[int, ...]) -> Merged:
    """Return a block of experts: of each, one tensor of every part, one below the other.

    Raises:
      ModelError: they do not make a block of the wanted shape.
    """
    pieces: list[tuple[StoredTensor, Slices]] = []
    start = 0
    for part in parts:
        rows = part[0].shape[0]
        for expert, tensor in enumerate(part):
            at = (slice(expert, expert + 1), slice(start, start + rows))
            pieces.append(
                (_checked(tensor, tensor.name, (rows, *wanted[2:]), tensor.file.path), at)
            )
        start += rows
    counts = {len(part) for part in parts}
    if counts != {wanted[0]} or start != wanted[1]:
        raise ModelError(
            f"{parts[0][0].file.path.parent}: {name!r} is {list(wanted)} by the configuration, but "
            f"the files hold {sorted(counts)} experts of {start} rows; copy or download the model "
            "again."
        )
    return Merged(wanted, tuple(pieces))


def _checked(
    tensor: StoredTensor, name: str, wanted: tuple[int, ...], folder: Path
) -> StoredTensor:
    """Return a tensor of the wanted shape.

    Raises:
      ModelError: it has another.
    """
    if tensor.shape != wanted:
        raise ModelError(
            f"{folder}: tensor {name!r} is {list(tensor.shape)}, the configuration asks for "
            f"{list(wanted)}; copy or download the model again."
        )
    return tensor


def _refuse_integers(found: Mapping[str, Stored], names: Collection[str], folder: Path) -> None:
    """Refuse a parameter that is stored in a type that cannot be read as it is.

    Raises:
      ModelError: as described.
    """
    for value in (found[name] for name in names if name in found):
        parts = [tensor for tensor, _ in value.pieces] if isinstance(value, Merged) else [value]
        for part in parts:
            entry = part.file.entries[part.name]
            if not entry.is_float:
                raise ModelError(
                    f"{folder}: tensor {part.name!r} is {entry.dtype}, and a number in that type "
                    "is no weight by itself; take the bfloat16 or float32 version of this model."
                )


def _blocks(network: Any, found: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
    """Return every block by name and where it is read, tied parameters together.

    As transformers does, parameters that the configuration ties stay apart where the files hold
    both and they differ.
    """
    ties = dict(_ties(network))
    places: dict[str, list[str]] = {}
    owners: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        block = owners.setdefault(id(parameter), name)
        source = ties.get(block, block)
        if source != block and not _differ(found.get(source), found.get(block)):
            block = source
        places.setdefault(block, []).append(name)
    for name, read_at in places.items():  # its own place first: older runs took its name
        read_at.sort(key=lambda place: place != name)
    return {name: tuple(read_at) for name, read_at in places.items()}


def _ties(network: Any) -> Iterator[tuple[str, str]]:
    """Yield tied parameters: a name, and that of the one whose numbers it has."""
    known = getattr(network, "all_tied_weights_keys", None)
    if known is not None:
        yield from known.items()
        return
    if not getattr(network.config, "tie_word_embeddings", False):  # transformers 4
        return
    paths = {id(module): path for path, module in network.named_modules()}
    head, table = network.get_output_embeddings(), network.get_input_embeddings()
    if head is not None:
        yield f"{paths[id(head)]}.weight", f"{paths[id(table)]}.weight"


def _differ(one: Stored | None, other: Stored | None) -> bool:
    """Return whether both are stored, with other numbers."""
    if one is None or other is None:
        return False
    step = max(1, _COMPARED_BYTES // (4 * max(1, math.prod(one.shape[1:]))))
    for start in range(0, one.shape[0], step):
        rows = slice(start, min(start + step, one.shape[0]))
        if not np.array_equal(one[rows], other[rows], equal_nan=True):
            return True
    return False
