"""The configuration of transformers that a GGUF file's metadata stands for, by architecture."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.gguf.file import GgufFile

Config = dict[str, Any]
_MOST = 1 << 24  # of any count
# Llama 3.1 to 3.3 stretch positions so; a file holds only the factors that come of it.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_POSITIONS = 8192
_CLOSE = 1e-3  # factors are stored in float32, and differ by whole parts between kinds
_LARGE = {
    "gemma2": 46,
    "gemma3": 62,
}  # layers of the 27B models, whose queries are scaled otherwise
_LOCAL_BASE, _LOCAL_LAYERS = 10_000.0, 6  # of Gemma 3, where a file does not say it


@dataclass(frozen=True)
class Metadata:
    """Checked values of a file, under the name of its architecture.

    Raises (every method):
      ModelError: the value is missing or none of that kind.
    """

    file: GgufFile
    kind: str

    def has(self, key: str) -> bool:
        """Return whether the file says something of it."""
        return f"{self.kind}.{key}" in self.file.metadata

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number from 1."""
        found = self._found(key, default)
        if type(found) is not int or not 0 < found <= _MOST:
            raise self._wrong(key, found, f"a whole number from 1 to {_MOST}")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number above 0, of as few digits as tell it from other float32."""
        found = self._found(key, default)
        if type(found) not in (int, float) or not (0 < found < math.inf):
            raise self._wrong(key, found, "a number above 0")
        return float(str(np.float32(found))) if type(found) is float else float(found)

    def word(self, key: str, default: str) -> str:
        """Return a word."""
        found = self._found(key, default)
        if not isinstance(found, str):
            raise self._wrong(key, found, "a word")
        return found

    def _found(self, key: str, default: Any) -> Any:
        found = self.file.metadata.get(f"{self.kind}.{key}", default)
        if found is None:
            raise ModelError(
                f"{self.file.path}: its metadata have no {self.kind}.{key}; download it again."
            )
        return found

    def _wrong(self, key: str, found: Any, wanted: str) -> ModelError:
        shown = " ".join(str(found).split())[:60]
        return ModelError(
            f"{self.file.path}: {self.kind}.{key} is {shown}, expected {wanted}; a model whose "
            "layers differ is not read, take another file."
        )


def configuration_of(file: GgufFile, kind: str) -> Config:
    """Return what `config.json` says of the model that a file holds.

    Args:
      kind: its architecture, one of `SETTINGS`.

    Raises:
      ModelError: something is missing, or says what transformers' model of that kind cannot do.
    """
    meta = Metadata(file, kind)
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise ModelError(f"{file.path}: no token_embd.weight; download it again.")
    experts = file.metadata.get(f"{kind}.expert_count", 0)
    if type(experts) is not int or experts != 0:
        raise ModelError(
            f"{file.path}: its layers are made of experts, which are not read from GGUF; name the "
            "folder of the model in safetensors."
        )
    width, heads = meta.count("embedding_length"), meta.count("attention.head_count")
    head = meta.count("attention.key_length", width // heads or 1)
    for key in ("attention.value_length", "rope.dimension_count"):
        if kind != "phi3" and meta.count(key, head) != head:
            raise ModelError(
                f"{file.path}: {kind}.{key} is {meta.count(key)} and a head has {head}, which is "
                "not read; take another file."
            )
    groups = meta.count("attention.head_count_kv", heads)
    if heads % groups or head % 2:
        raise ModelError(
            f"{file.path}: {heads} heads of {head} numbers beside {groups} of keys do not go "
            "together; download it again."
        )
    config: Config = {
        "vocab_size": table.shape[0],
        "hidden_size": width,
        "num_hidden_layers": meta.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head,
        "intermediate_size": meta.count("feed_forward_length"),
        "max_position_embeddings": meta.count("context_length"),
        "rms_norm_eps": meta.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": meta.number("rope.freq_base", 10_000.0),
        "rope_scaling": _scaling(meta),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": "float32",
        **_ids(file, table.shape[0]),
    }
    return config | SETTINGS[kind](meta, config)


def _ids(file: GgufFile, vocabulary: int) -> Config:
    found: Config = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        known = type(number) is int and 0 <= number < vocabulary
        found[f"{name}_token_id"] = number if known else None
    return found


def _scaling(meta: Metadata) -> Config | None:
    """Return how positions are stretched, where the metadata say it."""
    kind = meta.word("rope.scaling.type", "linear" if meta.has("rope.scale_linear") else "none")
    if kind in ("none", "longrope"):  # the latter is told by its tensors
        return None
    factor = meta.number("rope.scaling.factor", meta.number("rope.scale_linear", 1.0))
    if factor == 1:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        own = meta.count("context_length")
        before = meta.count("rope.scaling.original_context_length", own)
        found = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": before}
        for name in ("beta_fast", "beta_slow"):
            if meta.has(f"rope.scaling.yarn_{name}"):
                found[name] = meta.number(f"rope.scaling.yarn_{name}")
        if meta.has("rope.scaling.attn_factor"):
            own_factor = meta.number("rope.scaling.attn_factor")
            found["attention_factor"] = own_factor * (0.1 * math.log(factor) + 1)
        return found
    raise ModelError(
        f"{meta.file.path}: stretches positions by {kind!r}, and 'linear', 'yarn' and 'longrope' "
        "are read; take another file."
    )


def _vector(file: GgufFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensors[name]
    if len(tensor.shape) > 1 or tensor.shape[0] > _MOST:
        raise ModelError(f"{file.path}: {name} is no list of numbers; download it again.")
    found = np.empty((1, *tensor.shape), np.float32)
    file.rows_into(name, range(1), found)
    if not (np.isfinite(found) & (found > 0)).all():
        raise ModelError(
            f"{file.path}: {name} has factors that are no numbers above 0; download it again."
        )
    return found.reshape(tensor.shape)


def _llama3(meta: Metadata, config: Config) -> Config | None:
    """Return the scaling of Llama 3.1 that gives the factors of a file.

    Raises:
      ModelError: none does.
    """
    stored = _vector(meta.file, "rope_freqs.weight").astype(np.float64)
    factor = float(stored.max())
    if np.allclose(stored, 1):
        return None
    half, before = config["head_dim"] // 2, _LLAMA3_POSITIONS
    waves = 2 * math.pi * config["rope_theta"] ** (np.arange(half) / half)
    low, high = _LLAMA3.values()
    smooth = np.clip((before / waves - low) / (high - low), 0, 1)
    wanted = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != wanted.shape or not np.allclose(stored, wanted, rtol=_CLOSE):
        raise ModelError(
            f"{meta.file.path}: its rope_freqs are not those of Llama 3.1 to 3.3, and others are "
            "not read; name the folder of the model in safetensors."
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        **_LLAMA3,
        "original_max_position_embeddings": before,
    }


def _llama(meta: Metadata, config: Config) -> Config:
    tensors = meta.file.tensors
    found: Config = {"attention_bias": "blk.0.attn_q.bias" in tensors}
    found["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
    if "rope_freqs.weight" in tensors:
        found["rope_scaling"] = _llama3(meta, config)
    if window := _window(meta):
        return {**_named("mistral", "Mistral"), "sliding_window": window, **found}
    return {**_named("llama", "Llama"), **found}


def _qwen2(_: Metadata, config: Config) -> Config:
    del config["head_dim"]  # no key of this kind: a head is its share of the width
    return {**_named("qwen2", "Qwen2"), "use_sliding_window": False}


def _qwen3(meta: Metadata, _: Config) -> Config:
    return {
        **_named("qwen3", "Qwen3"),
        "attention_bias": "blk.0.attn_q.bias" in meta.file.tensors,
        "use_sliding_window": False,
    }


def _gemma(_: Metadata, __: Config) -> Config:
    return {**_named("gemma", "Gemma"), "hidden_activation": "gelu_pytorch_tanh"}


def _query_scale(meta: Metadata, config: Config) -> int:
    """Return what queries are divided by the root of; files do not say it, layers tell the size."""
    if config["num_hidden_layers"] == _LARGE[meta.kind]:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def _gemma2(meta: Metadata, config: Config) -> Config:
    return {
        **_named("gemma2", "Gemma2"),
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": meta.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": meta.number("final_logit_softcapping", 30.0),
        "sliding_window": meta.count("attention.sliding_window", 4096),
        "query_pre_attn_scalar": _query_scale(meta, config),
    }


def _gemma3(meta: Metadata, config: Config) -> Config:
    every = meta.count("attention.sliding_window_pattern", _LOCAL_LAYERS)
    layers = range(1, config["num_hidden_layers"] + 1)
    cap = meta.has("final_logit_softcapping")
    return {
        **_named("gemma3_text", "Gemma3"),
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": meta.number("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": meta.number("rope.freq_base_swa", _LOCAL_BASE),
        "sliding_window": meta.count("attention.sliding_window"),
        "layer_types": [f"{'sliding' if n % every else 'full'}_attention" for n in layers],
        "final_logit_softcapping": meta.number("final_logit_softcapping") if cap else None,
        "query_pre_attn_scalar": _query_scale(meta, config),
    }


def _window(meta: Metadata) -> int | None:
    """Return how many tokens a layer looks back; None, which llama.cpp writes as 0: to all."""
    key = "attention.sliding_window"
    return None if meta.file.metadata.get(f"{meta.kind}.{key}", 0) == 0 else meta.count(key)


def _phi3(meta: Metadata, config: Config) -> Config:
    head = config.pop("head_dim")
    turned = meta.count("rope.dimension_count", head)
    if head * config["num_attention_heads"] != config["hidden_size"] or turned > head:
        raise ModelError(
            f"{meta.file.path}: heads of {head}, {turned} of them turned, do not make a Phi-3 of "
            f"width {config['hidden_size']}; download it again."
        )
    found: Config = {**_named("phi3", "Phi3"), "sliding_window": _window(meta)}
    if turned != head:
        found["partial_rotary_factor"] = turned / head
    own = config["max_position_embeddings"]
    before = meta.count("rope.scaling.original_context_length", own)
    found["original_max_position_embeddings"] = before
    names = {side: f"rope_factors_{side}.weight" for side in ("short", "long")}
    missing = [name for name in names.values() if name not in meta.file.tensors]
    if len(missing) == 1:
        raise ModelError(f"{meta.file.path}: no tensor {missing[0]!r}; download it again.")
    if not missing:
        scaling: Config = {"rope_type": "longrope", "type": "longrope"}
        for side, name in names.items():
            scaling[f"{side}_factor"] = [float(str(number)) for number in _vector(meta.file, name)]
        if meta.has("rope.scaling.attn_factor"):
            scaling["attention_factor"] = meta.number("rope.scaling.attn_factor")
        found["rope_scaling"] = scaling | {"original_max_position_embeddings": before}
    return found


def _named(model_type: str, name: str) -> Config:
    return {"model_type": model_type, "architectures": [f"{name}ForCausalLM"]}


# What `general.architecture` says -> what its configuration has beside what all have.
SETTINGS: Mapping[str, Callable[[Metadata, Config], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
}
