"""Everything that defines a run, as one frozen value read from TOML or the command line."""

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from edge_train.errors import InputError
from edge_train.units import parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOW_RANK = ("galore", "q-galore", "dct-adamw", "apollo", "apollo-mini", "frugal")
PROJECTING = ("galore", "q-galore", "dct-adamw")  # those that read a projection and no more
_LAYERWISE = ("tpsgd", "local", "drtp", "dfa")
CHOOSING = ("galore", "q-galore")  # the basis is not what the method is named after
EXACT = ("backprop", "adamw", "adamw8bit", "lora", *LOW_RANK)  # methods on exact gradients
CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("personalize", "classify", "language-model", "network"),
    "learn": ("object", "style"),
    "method": ("auto", "zo", *EXACT, *_LAYERWISE),
    "preset": ("default", "zoodip", "mezo"),
    "runtime": ("auto", "torch", "onnx", "ort-training", "numpy"),
    "trainable": ("all", "head", "norms", "lora"),
    "device": ("auto", "cpu", "cuda", "tensorrt", "coreml", "qnn", "directml"),
    "quant": ("auto", "none", "int8", "int8-fast", "int4"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "schedule": ("cosine", "constant"),
    "basis": ("svd", "dct", "columns", "auto"),
    "loss": ("softmax", "l2", "sign", "huber", "hinge", "logistic", "cosine"),
    "targets": ("auto", "full", "pooled", "channel", "every", "last"),
    "projection": ("rademacher", "gaussian", "uniform", "orthogonal"),
    "projection_memory": ("key", "int8"),
    "mode": ("online", "sequential"),
}


@dataclass(frozen=True)
class Recipe:
    """A run. None means: the default of the model, method or preset (`resolve` fills it in)."""

    task: str = "personalize"
    model: str = "tiny-sd"  # the embedded model
    photos: str | None = None  # folder; None is the embedded example
    data: str | None = None  # a text; labeled texts; or npz, csv, a folder of pictures per class
    token: str | None = None  # spelling of the new word, such as <my-dog>
    class_word: str | None = None  # the word that the token starts from
    learn: str = "object"
    vectors: int = 1
    flips: bool = True
    prompts: tuple[str, ...] = ()  # previews; {} marks the token
    resolution: int | None = None  # pixels
    length: int | None = None  # tokens of a text; longer ones lose their end
    trainable: str = "all"  # of a classifier; or its head, head and vectors, head and adapters
    method: str = "auto"
    preset: str = "default"
    runtime: str = "auto"
    device: str = "auto"
    quant: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    lean: bool = False  # weights stay in a file, nothing is kept for the next call; slower
    batch_limit: int | None = None  # most samples in one call of the model
    previews: bool = True
    seed: int = 42
    cap_bytes: int | None = None
    host_cap_bytes: int | None = None
    out: str | None = None
    steps: int | None = None
    learning_rate: float | None = None  # Adam's step per coordinate, absolute
    relative_rate: float | None = None  # the same as a share of the start vector's rms
    weight_decay: float | None = None  # decoupled; matrices only
    schedule: str | None = None
    rank: int | None = None  # vectors of a low-rank basis; columns of an adapter
    refresh_every: int | None = None  # steps between two bases; adaptive ones start from it
    scale: float | None = None  # of a low-rank update; of an adapter; of the signs of frugal
    basis: str | None = None  # of galore and q-galore; auto: by what each keeps of a gradient
    difference_rank: int | None = None  # of the adapter that holds what training changed
    samples: int | None = None  # photos or texts per step
    queries: int | None = None  # directions per step
    sides: int | None = None
    epsilon: float | None = None  # radius as a share of the rms; None: the slope check picks it
    window: tuple[int, int] | None = None  # timesteps
    evaluation_samples: int | None = None
    evaluate_every: int | None = None  # steps
    patience: int | None = None  # evaluations; 0 never stops early
    preview_every: int = 0  # steps; 0 is before and after only
    preview_steps: int = 20
    guidance: float | None = None
    # task "network": a small network, trained from its beginning or behind a frozen backbone
    network: str | None = None  # such as `mlp 500 500`; networks.py has the words
    loss: str = "softmax"  # of a block against its projected label
    targets: str = "auto"  # how pictures and sequences meet their target
    projection: str = "rademacher"
    projection_scale: float | None = None  # root mean square of the projection's entries
    projection_memory: str = "int8"  # held so, or made again from its key
    mode: str = "online"
    through_time: bool = True  # exact gradient within a recurrent block
    momentum: float = 0.9
    micro_batch: int | None = None  # samples or sequences whose inner activations exist at once
    train_samples: int | None = None
    test_samples: int | None = None
    series: tuple[int, int] | None = None  # rows and stride of the windows of a csv
    backbone: str | None = None  # network.safetensors of a run, or an .onnx file
    backbone_blocks: int | None = None  # how many stay; None: all but the last
    old_data: str | None = None  # what the backbone came from, to measure forgetting

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise InputError(f"{name} {value!r} is not known; choose one of {_list(allowed)}.")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value}, must be from {low:g} to {high:g}.")
        if self.window is not None and not 0 <= self.window[0] < self.window[1]:
            raise InputError(f"window {list(self.window)} must be two rising timesteps.")
        _refuse_keys_of_other_tasks(self)
        adapters = self.method == "lora" or self.trainable == "lora"
        readers = {"basis": CHOOSING, "refresh_every": LOW_RANK}
        for name in ("rank", "refresh_every", "scale", "basis"):
            able = readers.get(name, (*LOW_RANK, "lora"))
            read = self.method in able or (adapters and "lora" in able)
            if getattr(self, name) is not None and not read:
                raise InputError(
                    f"{name} is not read by method {self.method!r}, only by {_list(able)}; "
                    "leave it out."
                )


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("vectors", 1, 64),
    ("resolution", 8, 4096),
    ("threads", 1, 1024),
    ("batch_limit", 1, 4096),
    ("seed", 0, 2**63 - 1),
    ("steps", 1, 10_000_000),
    ("length", 3, 65536),
    ("learning_rate", 1e-9, 1e3),
    ("weight_decay", 0, 1e3),
    ("relative_rate", 1e-9, 1e3),
    ("rank", 1, 65536),
    ("refresh_every", 1, 10_000_000),
    ("scale", 0, 1e6),
    ("difference_rank", 1, 65536),
    ("samples", 1, 4096),
    ("queries", 1, 1024),
    ("sides", 1, 2),
    ("epsilon", 1e-9, 1e3),
    ("evaluation_samples", 1, 100_000),
    ("evaluate_every", 1, 10_000_000),
    ("patience", 0, 10_000_000),
    ("preview_every", 0, 10_000_000),
    ("preview_steps", 1, 1000),
    ("guidance", 0, 100),
    ("projection_scale", 1e-6, 1e6),
    ("momentum", 0, 0.999),
    ("micro_batch", 1, 4096),
    ("train_samples", 4, 10**9),
    ("test_samples", 1, 10**9),
    ("backbone_blocks", 1, 1000),
)


_PATHS = ("photos", "data", "backbone", "old_data")
# Relative to the recipe's own folder; so is `model` where such a folder is there.
_BESIDE_RECIPE = ("data", "backbone", "old_data")
# Keys that only some tasks read. Set for another task they are refused, not ignored.
_READ_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("photos", "token", "class_word", "learn", "vectors", "flips", "prompts"),
            *("window", "preview_steps", "guidance"),
        ),
        ("personalize",),
    ),
    "trainable": ("classify",),
    **dict.fromkeys(("length", "weight_decay"), ("classify", "language-model")),
    **dict.fromkeys(
        ("rank", "refresh_every", "scale", "basis", "difference_rank"),
        ("classify", "language-model"),
    ),
    **dict.fromkeys(
        (
            *("network", "loss", "targets", "projection", "projection_scale", "mode"),
            *("projection_memory", "through_time", "momentum", "train_samples"),
            *("test_samples", "series", "backbone", "backbone_blocks", "old_data"),
        ),
        ("network",),
    ),
    "data": ("classify", "language-model", "network"),
    "micro_batch": ("language-model", "network"),
    "preview_every": ("personalize", "network"),
    "resolution": ("personalize", "network"),
}
_INSTEAD = {"photos": "data", "data": "photos"}  # what other tasks call it


def _refuse_keys_of_other_tasks(recipe: Recipe) -> None:
    for field in fields(recipe):
        tasks, instead = _READ_BY.get(field.name), _INSTEAD.get(field.name)
        if tasks and recipe.task not in tasks and getattr(recipe, field.name) != field.default:
            raise InputError(
                f"{field.name} is not read by task {recipe.task!r}, only by {_list(tasks)}; "
                + (f"name {instead}." if instead else "leave it out.")
            )


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)


def from_mapping(values: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe that `values` describes; sizes may be spelled `8GB`.

    Raises:
      InputError: an unknown key (the nearest known one is named) or a value of the wrong type.
    """
    known = get_type_hints(Recipe)
    clean: dict[str, Any] = {}
    for key, value in values.items():
        name = {"mem": "cap_bytes", "host_mem": "host_cap_bytes", "class": "class_word"}.get(
            key, key
        )
        if name not in known:
            near = difflib.get_close_matches(key, [*known, "mem", "class"], n=1, cutoff=0)
            raise InputError(f"{source}: unknown key {key!r}; did you mean {near[0]!r}?")
        clean[name] = _typed(source, key, known[name], value)
    return Recipe(**clean)


def _typed(source: str, key: str, kind: Any, value: Any) -> Any:
    if key in ("mem", "host_mem"):
        return parse_bytes(str(value))
    wanted = get_args(kind)[0] if get_origin(kind) is UnionType else kind  # drop `| None`
    if isinstance(value, list):
        value = tuple(value)
    if wanted is float and type(value) is int:
        value = float(value)
    if get_origin(wanted) is tuple:
        item, *rest = get_args(wanted)
        fits = type(value) is tuple and all(type(one) is item for one in value)
        fits = fits and (rest == [...] or len(value) == 1 + len(rest))
        name = f"list of {item.__name__}"
    else:
        fits, name = type(value) is wanted, wanted.__name__
    if not fits:
        raise InputError(f"{source}: {key} = {value!r} is not of type {name}.")
    return value


def read(path: Path) -> Recipe:
    """Return the recipe in a TOML file; its data may lie beside it.

    Raises:
      InputError: the file is missing, not TOML, or holds an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"recipe {path}: cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"recipe {path}: not TOML ({error}).") from error
    recipe = from_mapping(values, str(path))
    beside: dict[str, Any] = {
        key: str(path.parent / value)
        for key in _BESIDE_RECIPE
        if (value := getattr(recipe, key)) and not Path(value).expanduser().is_absolute()
    }
    model = path.parent / recipe.model
    if (model / "config.json").is_file() and not Path(recipe.model).expanduser().is_absolute():
        beside["model"] = str(model)
    return replace(recipe, **beside)


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML; keys that are None are left out.

    >>> print(to_toml(Recipe(token="<x>", window=(500, 900))).splitlines()[2:4])
    ['token = "<x>"', 'learn = "object"']
    """
    lines = []
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if value is not None:
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def anywhere(recipe: Recipe) -> Recipe:
    """Return a recipe whose files and folders can be found from every working directory."""
    found = {key: getattr(recipe, key) for key in _PATHS}
    found = {key: str(Path(path).expanduser().resolve()) for key, path in found.items() if path}
    model = Path(recipe.model).expanduser()
    if model.is_dir():
        found["model"] = str(model.resolve())
    return replace(recipe, **found)


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    """Return plain values for the journal."""
    return dataclasses.asdict(recipe)


def known(value: Any) -> Any:
    """Return a recipe value that `resolve` has filled in."""
    if value is None:
        raise TypeError("the recipe was not resolved")
    return value
