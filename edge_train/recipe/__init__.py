"""A run as one frozen value: every key declared once, read from TOML, words or Python.

A task has one class of recipe. A key is a field of it with its type, range, flag and help beside
it; keys that several tasks share are fields of a small class that theirs inherit. What a method or
rule of another package adds is in `options`, and as flat as the rest in a file and in words.
"""

import dataclasses
import os.path
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from edge_train.errors import InputError
from edge_train.power.when import parse_when
from edge_train.recipe.key import DETAILS
from edge_train.recipe.key import Key as Key
from edge_train.recipe.key import key as key
from edge_train.registry import nearest
from edge_train.units import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

R = TypeVar("R", bound="Recipe")
# Of update rules: a run goes on by those that it began with. By 1 low-rank rules project output
# layers and take the signs of singular vectors as they are found, and no warm-up is a default.
# By 2 directions of zo are isotropic or along a metric to the end, by 3 nothing pulls its words, by
# 4 a LoRA of the embedded model stands beside attentions only, by 5 pictures of the class may have
# the words of what a LoRA learns, by 6 words of any width end with isotropic directions of zo, by 7
# rows of a gradient are in float32 where products with weights are of bfloat16, and losses beside
# an adapter are those of all words for some tokens at a time.
RULES = 8
_MOST_NESTED = 100  # brackets in a file; no key takes more than two
GROUPS = ("data", "method", "memory", "model", "evaluation", "pictures", "run")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every task reads. None means: the default of the model, method or preset."""

    task: ClassVar[str] = ""

    model: str = key(
        "",
        help="folder, file or artifact of a model, or a hub id",
        flags=("--model", "--pretrained_model_name_or_path", "--model_name_or_path"),
        may_be_path=True,
        group="data",
        common=True,
    )
    start: str | None = key(
        help="run, token file or model that this run starts from",
        flags=("--from", "--weights", "--resume_adapter_file"),
        may_be_path=True,
        group="data",
        common=True,
    )
    method: str = key("auto", help="how gradients are computed and used", common=True)
    preset: str = key("default", help="settings of a paper: default, zoodip or mezo")
    steps: int | None = key(
        help="most training steps",
        flags=("--steps", "--max_train_steps", "--iters"),
        low=1,
        high=10_000_000,
        common=True,
    )
    learning_rate: float | None = key(
        help="learning rate",
        flags=("--learning-rate", "--lr"),
        low=1e-9,
        high=1e3,
        common=True,
    )
    schedule: str | None = key(
        help="how the learning rate falls after the warm-up",
        flags=("--schedule", "--lr_scheduler", "--lr_scheduler_type"),
        choices=("cosine", "linear", "constant"),
        translates={"constant_with_warmup": "constant"},
    )
    warmup: int | None = key(
        help="warm-up: steps in which the learning rate rises to its full size",
        flags=("--warmup", "--lr_warmup_steps", "--warmup_steps"),
        low=0,
        high=10_000_000,
    )
    samples: int | None = key(
        help="batch size: photos, texts or sequences per step",
        flags=(
            "--samples",
            "--batch-size",
            "--train_batch_size",
            "--per_device_train_batch_size",
        ),
        low=1,
        high=4096,
        common=True,
    )
    batch_selection: str | None = key(help="which samples of a larger batch are trained")
    block_schedule: str | None = key(help="which blocks are trained in a step")
    cap_bytes: int | None = key(
        help="most memory that the run may hold, such as 8GB",
        flags=("--mem",),
        also=("mem",),
        is_bytes=True,
        group="memory",
        common=True,
    )
    host_cap_bytes: int | None = key(
        help="the same for the host, beside a discrete GPU",
        flags=("--host-mem",),
        also=("host_mem",),
        is_bytes=True,
        group="memory",
    )
    time_seconds: float | None = key(
        help="most time that the run may take, such as 90s, 30m or 2h: it ends with what it has",
        flags=("--time",),
        also=("time",),
        is_duration=True,
        low=1,
        high=366 * 24 * 3600,
        group="run",
        common=True,
    )
    when: str | None = key(
        help="when to train: mains (on mains power), night, or a time of day such as 22:00-06:00",
        check=parse_when,
        group="run",
    )
    batch_limit: int | None = key(
        help="most samples in one forward pass of the model", low=1, high=4096, group="memory"
    )
    lean: bool = key(
        False,
        help="keep weights in their file and give freed memory back; slower",
        group="memory",
    )
    runtime: str = key("auto", help="engine that runs the model", group="model")
    device: str = key(
        "auto",
        help="where the model runs",
        choices=("auto", "cpu", "cuda", "tensorrt", "coreml", "qnn", "directml"),
        group="model",
        common=True,
    )
    quant: str = key("auto", help="quantisation of the weights", group="model", common=True)
    dtype: str = key(
        "auto",
        help="type of float weights and activations",
        flags=("--dtype", "--mixed_precision"),
        choices=("auto", "float32", "bfloat16", "float16"),
        translates={"no": "float32", "fp16": "float16", "bf16": "bfloat16"},
        group="model",
    )
    threads: int | None = key(help="threads of the engine", low=1, high=1024, group="model")
    evaluation_samples: int | None = key(
        help="samples of the fixed evaluation batch", low=1, high=100_000, group="evaluation"
    )
    evaluate_every: int | None = key(
        help="steps between two evaluations",
        flags=("--evaluate-every", "--eval_steps", "--steps_per_eval"),
        low=1,
        high=10_000_000,
        group="evaluation",
    )
    patience: int | None = key(
        help="early stopping: evaluations without progress before training stops; 0: never",
        low=0,
        high=10_000_000,
        group="evaluation",
    )
    seed: int = key(42, help="seed of every random draw", low=0, high=2**63 - 1, group="run")
    out: str | None = key(
        help="run folder to make",
        flags=("--out", "--output_dir", "--adapter_path"),
        may_be_path=True,
        group="run",
        common=True,
    )
    options: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, hash=False
    )  # keys of other packages
    # of a run that was made longer (`records.longer`); its journal has them, not its file
    spans: tuple[tuple[int, int], ...] = ()
    # of a run with a time, or that ends by noise (`records.longer`): (updates before it, steps in
    # all); likewise
    fits: tuple[tuple[int, int], ...] = ()
    # the version of update rules that a run began with; its journal has it (`RULES`)
    rules: int = RULES

    def __post_init__(self) -> None:
        for name, one in self.declared().items():
            value = one.checked(getattr(self, name), "")
            if value is not getattr(self, name):
                object.__setattr__(self, name, value)

    @property
    def step_samples(self) -> int:
        """How many samples a step trains on, of a recipe with its defaults filled in."""
        return self.samples or 1

    @classmethod
    def declared(cls) -> Mapping[str, Key]:
        """Return every key of this class by its name, in the order of the fields."""
        return _keys(cls)  # type: ignore[arg-type] # a class is hashable, whatever its values are

    def option(self, name: str) -> Any:
        """Return the value of a key that another package declares; None where it is not set."""
        return self.options.get(name)


@dataclass(frozen=True, kw_only=True)
class DataKeys(Recipe):
    """Of tasks that read a file or folder of samples."""

    data: str | None = key(
        help="file or folder of samples",
        is_path=True,
        beside_recipe=True,
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class TextKeys(DataKeys):
    """Of tasks on texts."""

    length: int | None = key(
        help="sequence length: tokens of a text",
        flags=("--length", "--max_seq_length", "--max_length"),
        low=3,
        high=65536,
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class DifferenceKeys(Recipe):
    """Of tasks that change all weights of a model."""

    difference_rank: int | None = key(
        help="also write the change of the weights, as adapters of this rank",
        low=1,
        high=65536,
        group="run",
    )


@cache
def _keys(kind: type[Recipe]) -> Mapping[str, Key]:
    hints = get_type_hints(kind)
    found = {}
    for field in fields(kind):
        if DETAILS in field.metadata:
            hint = hints[field.name]
            bare = get_args(hint)[0] if get_origin(hint) is UnionType else hint  # drop `| None`
            found[field.name] = Key(
                field.name, bare, default=field.default, **field.metadata[DETAILS]
            )
    return MappingProxyType(found)


def required(value: Any) -> Any:
    """Return a recipe value that was filled in with the defaults."""
    if value is None:
        raise TypeError("the recipe was not resolved")
    return value


def from_mapping(
    kind: type[R],
    values: Mapping[str, Any],
    source: str,
    *,
    own: Mapping[str, Key] | None = None,
    others: Callable[[str], str | None] = lambda name: None,
) -> R:
    """Return the recipe of a class that `values` describe.

    Args:
      source: where they are from, for messages.
      own: keys that methods or rules of other packages declare, which go into `options`.
      others: says of a key that is not among these where it would be read, None where nowhere.

    Raises:
      InputError: an unknown key (the nearest one is named), one that is not for this task, or a
        value of the wrong type; all of them at once, a line each.
    """
    keys = kind.declared()
    names = {spelled: name for name, one in keys.items() for spelled in (name, *one.also)}
    own = own or {}
    clean: dict[str, Any] = {}
    options: dict[str, Any] = {}
    faults: list[str] = []
    lead = f"{source}: " if source else ""
    for spelled, value in values.items():
        try:
            if (name := names.get(spelled)) is not None:
                clean[name] = keys[name].checked(value, source)
            elif spelled in own:
                options[spelled] = own[spelled].checked(value, source)
            elif (sentence := others(spelled)) is not None:
                raise InputError(f"{lead}{sentence}")
            else:
                near = nearest(spelled, [*names, *own]).partition("? There are ")[0]
                asks = f"{near}?" if near.startswith("did") else "see `edge-train run --help`."
                raise InputError(f"{lead}unknown key {shown(spelled)}; {asks}")
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return kind(**{**clean, **({"options": options} if options else {})})


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys and values of a recipe's file.

    Raises:
      InputError: the file is missing or not TOML.
    """
    deep = f"recipe {path}: its lists are nested too deeply."
    try:
        text = path.read_text("utf-8-sig")
        if _open_brackets(text) > _MOST_NESTED:
            raise InputError(deep)
        return tomllib.loads(text)
    except OSError as error:
        raise InputError(f"recipe {path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise InputError(f"recipe {path}: not TOML ({error}).") from error
    except RecursionError as error:
        raise InputError(deep) from error


def _open_brackets(text: str) -> int:
    """Return how many brackets are open at most, those in strings, too.

    Python 3.11 can end its own recursion in a SystemError, and is no longer sound afterwards.

    >>> _open_brackets("a = [[1], {b = [2]}]")
    3
    """
    steps = (1 if sign in "[{" else -1 for sign in re.findall(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


def beside(recipe: R, folder: Path) -> R:
    """Return a recipe that was read from a file in `folder`; its data may lie beside it."""
    moved: dict[str, Any] = {}
    for name, one in recipe.declared().items():
        value = getattr(recipe, name)
        if one.beside_recipe and value and not Path(value).expanduser().is_absolute():
            moved[name] = str(folder / value)
    model = folder / recipe.model
    if recipe.model and os.path.isfile(model / "config.json"):  # noqa: PTH113 - any name may be asked
        moved["model"] = str(model)
    return replace(recipe, **moved)


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML: the keys of its task that have a value.

    >>> print(to_toml(Recipe(model="m", steps=3)).splitlines()[:3])
    ['task = ""', 'model = "m"', 'method = "auto"']
    """
    values = {"task": recipe.task, **as_mapping(recipe), **recipe.options}
    del values["options"]
    return "".join(f"{name} = {toml_value(v)}\n" for name, v in values.items() if v is not None)


def toml_value(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return (
            '"'
            + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped)
            + '"'
        )
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return repr(value)


def with_absolute_paths(recipe: R) -> R:
    """Return a recipe whose files and folders can be found from every working directory."""
    found: dict[str, Any] = {}
    for name, one in recipe.declared().items():
        if one.is_path and (value := getattr(recipe, name)):
            found[name] = str(Path(value).expanduser().resolve())
    if recipe.start is not None:
        found["start"] = str(Path(recipe.start).expanduser().resolve())
    model = Path(recipe.model).expanduser()
    if recipe.model and model.exists():
        found["model"] = str(model.resolve())
    return replace(recipe, **found)


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    """Return every key with its value, and `options`; the task is the class."""
    return {
        **{n: getattr(recipe, n) for n in type(recipe).declared()},
        "options": dict(recipe.options),
    }


def set_keys(recipe: Recipe) -> Iterator[str]:
    """Yield the keys whose value is not the default."""
    for name, one in recipe.declared().items():
        if getattr(recipe, name) != one.default:
            yield name
