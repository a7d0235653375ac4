"""What a configuration says of a decoder of the Llama family: one record for all its kinds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.transformers_folder import MOST_OF_HEADS, layers_of, whole_number
from edge_train.runtimes.numpy.rotary import Config, Rotation, rotation_of

Activation = str  # "silu" or "gelu_pytorch_tanh"
_ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
_LOCAL_BASE, _GLOBAL_BASE, _BASE = 10_000.0, 1_000_000.0, 10_000.0
_WINDOW, _PATTERN, _QUERY_SCALAR = 4096, 6, 256  # where a configuration does not say it


@dataclass(frozen=True)
class Norms:
    """What the norms of a layer are called; None where this kind has none at that place."""

    before_attention: str = "input_layernorm"
    after_attention: str | None = None
    before_products: str = "post_attention_layernorm"
    after_products: str | None = None


_FOUR = Norms(
    after_attention="post_attention_layernorm",
    before_products="pre_feedforward_layernorm",
    after_products="post_feedforward_layernorm",
)
_TYPES = ("full_attention", "sliding_attention")
_WIDEST = 1 << 20  # ten times what any model has; above it a plan would be of petabytes


@dataclass(frozen=True)
class Decoder:
    """The shape of a network, and what its kind does otherwise than Llama.

    Attributes:
      inner: numbers between the gates and the layer behind them; None where nobody says it.
      groups: heads of keys and of values; each serves `heads // groups` queries.
      head: numbers of a head.
      norm_offset: what is added to the weights of norms; 1 in Gemma.
      embedding_scale: what the rows of the table of words are multiplied by.
      score_scale: what products of queries and keys are multiplied by.
      score_cap, logit_cap: c in c tanh(x / c); None where they are not capped.
      projections: linear layers whose outputs, side by side, are queries, keys and values.
      gates: those whose outputs, side by side, are the gate and what it lets through.
      windows: of each layer, how many positions a token sees, itself among them; None: all.
      rotations: of each layer.
      tied: whether the output layer is the table of words.
    """

    width: int
    inner: int | None
    heads: int
    groups: int
    head: int
    epsilon: float
    activation: Activation
    score_scale: float
    norm_offset: float
    embedding_scale: float
    score_cap: float | None
    logit_cap: float | None
    projections: tuple[str, ...]
    gates: tuple[str, ...]
    norms: Norms
    windows: tuple[int | None, ...]
    rotations: tuple[Rotation, ...]
    tied: bool

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.windows)

    def linear_layers(self) -> list[str]:
        """Return the paths of all linear layers but the output one, in the order of a pass."""
        inside = (*self.projections, "self_attn.o_proj", *self.gates, "mlp.down_proj")
        return [f"model.layers.{n}.{name}" for n in range(self.layers) for name in inside]


def _no_windows(_: Config, layers: int) -> Sequence[bool]:
    return [False] * layers


def _all_windows(_: Config, layers: int) -> Sequence[bool]:
    return [True] * layers


def _late_windows(config: Config, layers: int) -> Sequence[bool]:
    """Qwen: the layers from one on, if at all."""
    on = bool(config.get("use_sliding_window", False))
    types = config.get("layer_types")
    if types is not None:
        return [on and kind == _TYPES[1] for kind in types]
    first = whole_number(config.get("max_window_layers", 28))
    return [on and n >= first for n in range(layers)]


def _every_second(config: Config, layers: int) -> Sequence[bool]:
    return _by_types(config, layers, 2)


def _five_of_six(config: Config, layers: int) -> Sequence[bool]:
    return _by_types(config, layers, whole_number(config.get("sliding_window_pattern", _PATTERN)))


def _by_types(config: Config, layers: int, every: int) -> Sequence[bool]:
    types = config.get("layer_types")
    if types is not None:
        return [kind == _TYPES[1] for kind in types]
    return [bool((n + 1) % every) for n in range(layers)]


@dataclass(frozen=True)
class _Kind:
    """What a kind of transformers has that its configuration does not say, and its defaults."""

    windowed: Callable[[Config, int], Sequence[bool]] = _no_windows
    window: int | None = None
    head: int | None = None
    groups: int | None = None
    epsilon: float = 1e-6
    activation: tuple[str, str] = ("hidden_act", "silu")
    norm_offset: float = 0.0
    scaled_words: bool = False
    caps: tuple[float | None, float | None] = (None, None)
    query_scalar: int | None = None
    norms: Norms = field(default_factory=Norms)
    fused: bool = False
    local_base: float | None = None
    base: float = _BASE
    tied: bool = False


_TANH = "gelu_pytorch_tanh"
# What `model_type` says -> its kind.
_KINDS: Mapping[str, _Kind] = {
    "llama": _Kind(),
    "mistral": _Kind(windowed=_all_windows, window=_WINDOW, groups=8),
    "qwen2": _Kind(windowed=_late_windows, window=_WINDOW),
    "qwen3": _Kind(windowed=_late_windows, window=_WINDOW, head=128),
    "phi3": _Kind(windowed=_all_windows, epsilon=1e-5, fused=True),
    "gemma": _Kind(
        head=256,
        groups=16,
        activation=("hidden_act", _TANH),
        norm_offset=1.0,
        scaled_words=True,
        tied=True,
    ),
    "gemma2": _Kind(
        windowed=_every_second,
        window=_WINDOW,
        head=256,
        groups=4,
        activation=("hidden_activation", _TANH),
        norm_offset=1.0,
        scaled_words=True,
        caps=(50.0, 30.0),
        query_scalar=_QUERY_SCALAR,
        norms=_FOUR,
        tied=True,
    ),
    "gemma3_text": _Kind(
        windowed=_five_of_six,
        window=_WINDOW,
        head=256,
        groups=4,
        activation=("hidden_activation", _TANH),
        norm_offset=1.0,
        scaled_words=True,
        query_scalar=_QUERY_SCALAR,
        norms=_FOUR,
        local_base=_LOCAL_BASE,
        base=_GLOBAL_BASE,
        tied=True,
    ),
}
DECODERS = tuple(_KINDS)


_WRONG = (
    *(KeyError, TypeError, ValueError, IndexError, AttributeError),
    *(OverflowError, ZeroDivisionError),
)


def decoder_of(config: Config, path: Path) -> Decoder:
    """Return the decoder that a configuration describes.

    Args:
      path: of the model, for messages.

    Raises:
      ModelError: it is of another family, or lacks a number.
    """
    name = config.get("model_type")
    if not isinstance(name, str) or name not in _KINDS:
        raise ModelError(
            f"{path}: is a {str(name)[:40]!r}, and engine 'numpy' trains {', '.join(_KINDS)}; use "
            "--runtime torch."
        )
    try:
        return _decoder(config, _KINDS[name], path)
    except _WRONG as error:
        raise ModelError(
            f"{path}: its configuration lacks a value, or one is of a wrong type ({error}); copy "
            "or download the model again."
        ) from error


def _decoder(config: Config, kind: _Kind, path: Path) -> Decoder:
    layers, width = layers_of(config), whole_number(config["hidden_size"], _WIDEST, 1)
    heads = whole_number(config["num_attention_heads"], MOST_OF_HEADS, 1)
    groups = config.get("num_key_value_heads", kind.groups)
    groups = heads if groups is None else whole_number(groups)
    head = config.get("head_dim", kind.head)
    head = width // heads if head is None else whole_number(head, MOST_OF_HEADS)
    if not (head and groups) or heads % groups or head % 2:
        raise ValueError(f"{heads} heads of {head} share {groups} heads of keys")
    key, usual = kind.activation
    activation = config.get(key) or usual
    if activation not in _ACTIVATIONS:
        raise ModelError(
            f"{path}: its activation is {str(activation)[:40]!r}, and engine 'numpy' has "
            f"{', '.join(_ACTIVATIONS)}; use --runtime torch."
        )
    if config.get("use_bidirectional_attention"):
        raise ModelError(
            f"{path}: its tokens see those after them, which is no language model; name another."
        )
    scalar = config.get("query_pre_attn_scalar", kind.query_scalar) if kind.query_scalar else None
    window = config.get("sliding_window", kind.window)
    windowed = kind.windowed(config, layers)
    if len(windowed) != layers:
        raise ValueError(f"{len(windowed)} types of {layers} layers")
    windows = [
        whole_number(window) if inside and window is not None else None for inside in windowed
    ]
    wide, near = _rotations(config, kind, head)
    inner = config.get("intermediate_size")
    score_cap, logit_cap = (
        config.get(f"{name}_logit_softcapping", usual) if kind.query_scalar else None
        for name, usual in zip(("attn", "final"), kind.caps, strict=True)
    )
    return Decoder(
        width=width,
        inner=None if inner is None else whole_number(inner, _WIDEST),
        heads=heads,
        groups=groups,
        head=head,
        epsilon=float(config.get("rms_norm_eps", kind.epsilon)),
        activation=activation,
        score_scale=float(head if scalar is None else scalar) ** -0.5,
        norm_offset=kind.norm_offset,
        embedding_scale=width**0.5 if kind.scaled_words else 1.0,
        score_cap=None if score_cap is None else float(score_cap),
        logit_cap=None if logit_cap is None else float(logit_cap),
        projections=_inside("self_attn", ("qkv",) if kind.fused else ("q", "k", "v")),
        gates=_inside("mlp", ("gate_up",) if kind.fused else ("gate", "up")),
        norms=kind.norms,
        windows=tuple(windows),
        rotations=tuple(near if inside else wide for inside in windowed),
        tied=bool(config.get("tie_word_embeddings", kind.tied)),
    )


def _inside(module: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{module}.{name}_proj" for name in names)


def _rotations(config: Config, kind: _Kind, head: int) -> tuple[Rotation, Rotation]:
    """Return the rotation of layers that see all, and that of layers with a window."""
    given: Any = config.get("rope_parameters") or {}
    whole = given.get(_TYPES[0], given)
    # earlier configurations have the base on its own, and name the rest scaling
    scaling = {**whole, **(config.get("rope_scaling") or {})}
    base = whole.get("rope_theta", config.get("rope_theta", kind.base))
    if scaling.get("rope_type", scaling.get("type")) in ("su", "yarn") and kind.fused:
        scaling["rope_type"] = "longrope"  # what Phi-3 called it at first
    wide = rotation_of(config, scaling, head, base)
    if kind.local_base is None:
        return wide, wide
    own: Any = given.get(_TYPES[1]) or {}
    local = own.get("rope_theta", config.get("rope_local_base_freq", kind.local_base))
    return wide, rotation_of(config, own, head, local)
