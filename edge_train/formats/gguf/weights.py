"""The tensors of a GGUF file under the names, and in the order of rows, that transformers has.

llama.cpp turns neighboring pairs of a head, transformers its two halves: files of architecture
`llama` hold the rows of queries and keys in the former order. Norms of Gemma are stored with the
1 that its layers add.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.gguf.blocks import BlockType
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.tensor_file import TensorEntry

_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_PRODUCTS = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_PLAIN = {**_ATTENTION, "ffn_norm": "post_attention_layernorm", **_PRODUCTS}
_FOUR_NORMS = {
    **_ATTENTION,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    **_PRODUCTS,
}
_FUSED = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",  # the gate first, in both
    "ffn_down": "mlp.down_proj",
}
_LAYERS: Mapping[str, Mapping[str, str]] = {
    "llama": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "gemma": _PLAIN,
    "gemma2": _FOUR_NORMS,
    "gemma3": _FOUR_NORMS,
    "phi3": _FUSED,
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_OF_SETTINGS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_TURNED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
_PERMUTED = ("llama",)
# What transformers calls a kind of model -> the architecture of a file of it.
ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
}
_WITH_ONE = ("gemma", "gemma2", "gemma3")


# Parts of a layer that only these have.
_OF_SOME = {"attn_q_norm": ("qwen3", "gemma3"), "attn_k_norm": ("qwen3", "gemma3")}
# Parts whose biases come together, and the architecture that always has them.
_BIASED = {"qwen2": ("attn_q", "attn_k", "attn_v")}
_ALL_BIASED, _ALWAYS_BIASED = ("attn_q", "attn_k", "attn_v", "attn_output"), ("qwen2",)


def check_layers(file: GgufFile, kind: str, layers: int) -> None:
    """Refuse a file whose layers are not all there, or not all of one make.

    Args:
      kind: its architecture.
      layers: that its metadata have.

    Raises:
      ModelError: what is missing.
    """
    if "output_norm.weight" not in file.tensors:
        raise ModelError(f"{file.path}: no tensor 'output_norm.weight'; download it again.")
    found: dict[int, set[str]] = {}
    for name in file.tensors:
        if of_layer := re.fullmatch(r"blk\.(\d{1,9})\.(.+)", name):
            found.setdefault(int(of_layer[1]), set()).add(of_layer[2])
    if len(found) != layers or max(found) >= layers:
        raise ModelError(
            f"{file.path}: {kind}.block_count is {layers}, and its tensors are of {len(found)} "
            "layers; download it again."
        )
    wanted = {f"{p}.weight" for p in _LAYERS[kind] if kind in _OF_SOME.get(p, (kind,))}
    biases = {f"{part}.bias" for part in _BIASED.get(kind, _ALL_BIASED)}
    if kind in _ALWAYS_BIASED or any(own & biases for own in found.values()):
        wanted |= biases
    for number, own in sorted(found.items()):
        if lost := sorted(wanted - own):
            raise ModelError(f"{file.path}: no tensor 'blk.{number}.{lost[0]}'; download it again.")
        for part in wanted:
            sides = len(file.tensors[name := f"blk.{number}.{part}"].shape)
            if sides != (1 if part.endswith((".bias", "norm.weight")) else 2):
                raise ModelError(
                    f"{file.path}: tensor {name!r} has {sides} sides; download it again."
                )


@dataclass(frozen=True)
class _Place:
    """A tensor of the file: its name there, the length of a head whose rows are in pairs, or 0,
    and what is taken off its numbers.
    """

    name: str
    head: int = 0
    less: float = 0.0


class GgufWeights:
    """Reads tensors as transformers has them, in float32; a `WeightFile`.

    Attributes:
      entries: name in transformers -> its shape; types are those that are handed out.

    Raises:
      ModelError: the file holds a tensor that no model of its kind has.
    """

    def __init__(self, file: GgufFile, kind: str, config: Mapping[str, Any]) -> None:
        self.path, self._file = file.path, file
        self._places = {}
        for name in file.tensors:
            if name not in _OF_SETTINGS:
                known, place = _place(file, name, kind, config)
                self._places[known] = place
        self.entries = {name: self._entry(place) for name, place in self._places.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a whole tensor."""
        shape = self.entries[name].shape
        return self.part(name, slice(0, shape[0]))

    def part(self, name: str, rows: slice) -> NDArray[np.float32]:
        """Return neighboring rows of a tensor, of a vector some numbers.

        Memory: what is returned, and the megabytes of `GgufFile.rows_into`.
        """
        place, shape = self._places[name], self.entries[name].shape
        own = range(rows.start, rows.stop)
        wanted = _in_pairs(own, place.head) if place.head else own
        if len(shape) == 1:
            whole = np.empty((1, *shape), np.float32)
            self._file.rows_into(place.name, range(1), whole)
            out = whole[0, list(wanted)]
        else:
            out = np.empty((len(wanted), *shape[1:]), np.float32)
            if sorted(wanted) == list(own):  # whole heads: one read, and their rows turned here
                self._file.rows_into(place.name, own, out)
                out = out[[row - rows.start for row in wanted]]
            else:
                self._file.rows_into(place.name, wanted, out)
        if place.less:
            out -= np.float32(place.less)
        return out

    def rows(self, name: str, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return some rows of a matrix, in any order; only these are read."""
        place, shape = self._places[name], self.entries[name].shape
        wanted: Sequence[int] = indices
        if place.head:
            wanted = [row for one in indices for row in _in_pairs(range(one, one + 1), place.head)]
        out = np.empty((len(wanted), *shape[1:]), np.float32)
        self._file.rows_into(place.name, wanted, out)
        return out

    def stored_as(self, name: str) -> tuple[BlockType, int]:
        """Return the kind of a tensor's blocks, and the length of heads with rows in pairs, or 0.

        Of such a head, transformers has the rows 0, 2, 4, ... first, and 1, 3, 5, ... after them.
        """
        place = self._places[name]
        return self._file.tensors[place.name].kind, place.head

    def raw(self, name: str, rows: slice) -> NDArray[np.uint8]:
        """Return the bytes of neighboring rows of a matrix as they are stored, in that order."""
        return self._file.raw_rows(self._places[name].name, rows)

    def _entry(self, place: _Place) -> TensorEntry:
        tensor = self._file.tensors[place.name]
        if len(tensor.shape) > 2:
            raise ModelError(
                f"{self.path}: tensor {place.name!r} is {list(tensor.shape)}, expected a matrix "
                "or a vector; download it again."
            )
        count = int(np.prod(tensor.shape))
        return TensorEntry("F32", tensor.shape, tensor.start, 4 * count)


def _place(file: GgufFile, name: str, kind: str, config: Mapping[str, Any]) -> tuple[str, _Place]:
    """Return what transformers calls a tensor, and how it is stored.

    Raises:
      ModelError: it does not have it.
    """
    stem, _, last = name.rpartition(".")
    parts = stem.split(".")
    known = None
    if len(parts) == 1:
        known = _TOP.get(stem)
    elif len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal():
        inside = _LAYERS[kind].get(parts[2])
        known = inside and f"model.layers.{parts[1]}.{inside}"
    if known is None or last not in ("weight", "bias"):
        raise ModelError(
            f"{file.path}: holds tensor {name!r}, which no {kind} model of transformers has; take "
            "another file of this model."
        )
    head = config.get("head_dim", 0) if kind in _PERMUTED and parts[-1] in _TURNED else 0
    if head and (file.tensors[name].shape[0] != head * config[_TURNED[parts[-1]]] or head % 2):
        raise ModelError(
            f"{file.path}: tensor {name!r} has {file.tensors[name].shape[0]} rows, which heads of "
            f"{head} do not make; download it again."
        )
    less = 1.0 if kind in _WITH_ONE and stem.endswith("norm") else 0.0
    return f"{known}.{last}", _Place(name, head, less)


def stored_name(layer: str, kind: str) -> str | None:
    """Return what a file calls the weight of a layer; None: it has no such layer.

    >>> stored_name("model.layers.3.self_attn.o_proj", "llama"), stored_name("lm_head", "llama")
    ('blk.3.attn_output.weight', 'output.weight')
    """
    top = {known: own for own, known in _TOP.items()}
    inside = {known: own for own, known in _LAYERS[kind].items()}
    if layer in top:
        return f"{top[layer]}.weight"
    parts = layer.split(".", 3)
    if parts[:2] != ["model", "layers"] or len(parts) < 4 or parts[3] not in inside:
        return None
    return f"blk.{parts[2]}.{inside[parts[3]]}.weight"


def rows_as_stored(layer: str, kind: str, config: Mapping[str, Any], count: int) -> list[int]:
    """Return which rows of a layer's weight, as transformers has them, a file holds in turn.

    >>> sizes = {"num_attention_heads": 1, "hidden_size": 4}
    >>> rows_as_stored("model.layers.0.self_attn.q_proj", "llama", sizes, 4)
    [0, 2, 1, 3]
    """
    own = (stored_name(layer, kind) or "").split(".")[-2:-1]
    if kind not in _PERMUTED or not own or own[0] not in _TURNED:
        return list(range(count))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    order = [0] * count
    for row, place in enumerate(_in_pairs(range(count), head)):
        order[place] = row
    return order


def _in_pairs(rows: range, head: int) -> list[int]:
    """Return where rows of heads in two halves stand in a file that holds them in pairs.

    >>> _in_pairs(range(0, 4), 4), _in_pairs(range(5, 7), 4)
    ([0, 2, 1, 3], [6, 5])
    """
    half = head // 2
    found = []
    for row in rows:
        start, inside = row - row % head, row % head
        found.append(start + inside % half * 2 + inside // half)
    return found
