"""Whether a run of a language model trains an adapter, and which one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.adapter import (
    ALL_LINEAR,
    Adapter,
    Kind,
    Target,
    kind_of,
    read_adapter,
)
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.language_shapes import heads_of, shapes_in_files
from edge_train.optim.low_rank import is_embedding
from edge_train.recipe import required
from edge_train.registry import nearest
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

ADAPTER_FOLDER = "adapter"  # of a run
_RANK, _ALPHA_OVER_RANK = 16, 2.0
NO_ADAPTER = Adapter("lora", 1, 1.0, ())
_KEYS = ("alpha", "targets", "rslora")
_PROMPT_KEYS = ("prompt_tokens", "prompt_start")
_DISCRETE = "discrete"
_KINDS: Mapping[str, Kind] = {"lora": "lora", "dora": "dora"}
# Of rules: none reads the rank of a projection, and none asks for matrices as large as layers are.
_METHODS = ("auto", "backprop", "adamw", "adamw8bit", "zo")
ROUNDED_FROM = 8  # of rules: rows of gradients in bfloat16, losses by one walk over the words
_ALL_BEFORE = 2  # the version of rules from which on a model with weights gets an adapter
# What a step on adapters takes where the recipe does not say: see docs/benchmarks/habit.md.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "*": {"learning_rate": 2e-4, "clip": 1.0},
    "zo": {"learning_rate": 1e-4, "clip": None},
}
_SOFT = {"learning_rate": 1e-2}  # of a prompt's vectors, whose numbers are about 0.1
# Kinds whose matrices in files are those of linear layers, under the names of their modules.
_TOLD = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")


@dataclass(frozen=True)
class Start:
    """An adapter and its blocks, None for one that is drawn."""

    adapter: Adapter
    blocks: Mapping[str, Array] | None


def settled(recipe: LanguageModelRecipe, model: LanguageFolder) -> LanguageModelRecipe:
    """Return a recipe that says what is trained: `all`, `lora`, `dora` or `prompt`.

    Raises:
      InputError: a word is of adapters and the run trains all weights, or the other way round.
    """
    if recipe.trainable == "prompt" or recipe.method == _DISCRETE:
        return _with_prompt(recipe)
    if named := [name for name in _PROMPT_KEYS if getattr(recipe, name) is not None]:
        raise InputError(
            f"{named[0]} is of a prompt that is learned; use --trainable prompt, or leave it out."
        )
    if recipe.targets == "auto":  # as recipes of 0.1 say of every task, for another one's key
        recipe = replace(recipe, targets=None)
    trainable = recipe.trainable
    if recipe.rules < _ALL_BEFORE:  # its file may have `targets`, which was a key of all tasks once
        return replace(recipe, trainable="all", alpha=None, targets=None, rslora=False)
    if trainable == "auto":
        # apps load an adapter beside the file that they run; a folder's users expect a folder
        asked = _asked(recipe) or (recipe.rank is not None and recipe.method != "auto")
        adapts = model.made is not None or recipe.runtime == "numpy" or bool(asked)
        adapts = adapts and recipe.method in _METHODS and recipe.preset == "default"
        adapts = adapts and recipe.difference_rank is None
        trainable = "lora" if adapts else "all"
        if recipe.start is not None:
            trainable = kind_of(Path(recipe.start).expanduser())
    if trainable == "all":
        if asked := _asked(recipe):
            raise InputError(
                f"{asked[0]} is of adapters, and this run trains all weights; leave it out, or use "
                "--trainable lora."
            )
        if recipe.start is not None:
            raise InputError(
                f"--from {recipe.start} is an adapter, and --trainable says 'all'; leave that out, "
                f"or {_merged(recipe.start, model)}."
            )
        return replace(recipe, trainable=trainable)
    says, instead = f"--trainable says {trainable!r}", "--trainable all"
    if recipe.start is not None:
        says, instead = f"--from {recipe.start} is an adapter", _merged(recipe.start, model)
    if recipe.method not in _METHODS:
        raise InputError(
            f"method {recipe.method!r} trains all weights, and {says}; use --method "
            f"{', '.join(_METHODS[1:])}, or {instead}."
        )
    if recipe.difference_rank is not None:
        raise InputError(
            f"difference_rank asks for the change of all weights, and {says}, whose result is an "
            "adapter already; leave one of them out."
        )
    return replace(recipe, trainable=trainable)


def _merged(start: str, model: LanguageFolder) -> str:
    """Return how all weights of a model can be trained that has an adapter in it."""
    out, kind = ("merged.gguf", "merged-gguf") if model.made is not None else ("merged", "merged")
    return (
        f"train the model with the adapter in it: `edge-train export {start} {out} --to {kind}`, "
        f"then --model {out} without --from"
    )


def _with_prompt(recipe: LanguageModelRecipe) -> LanguageModelRecipe:
    """Return a recipe that trains a prompt.

    Raises:
      InputError: a word of it is of something else.
    """
    if recipe.trainable not in ("auto", "prompt"):
        raise InputError(
            f"method 'discrete' searches a prompt, --trainable says {recipe.trainable!r}; leave "
            "one of them out."
        )
    names = ("rank", "start", "difference_rank")
    others = [*_asked(recipe), *(name for name in names if getattr(recipe, name) is not None)]
    if others:
        name = "--from" if others[0] == "start" else others[0]
        raise InputError(f"{name} is of weights, and this run trains a prompt; leave it out.")
    if recipe.method not in (*_METHODS, _DISCRETE):
        raise InputError(
            f"method {recipe.method!r} trains weights, --trainable says 'prompt'; use --method "
            f"{', '.join((_DISCRETE, *_METHODS[1:]))}."
        )
    if recipe.loss_on == "all":
        raise InputError(
            "a prompt is learned from what follows it, and loss_on 'all' counts the prompt's own "
            "tokens; use --loss-on completions or labels."
        )
    if recipe.dropout or recipe.batch_selection is not None:
        name = "dropout" if recipe.dropout else "batch_selection"
        raise InputError(f"{name} is not for a run that trains a prompt; leave it out.")
    return replace(recipe, trainable="prompt")


def _asked(recipe: LanguageModelRecipe) -> list[str]:
    """Return the keys of adapters that a recipe has."""
    return [name for name in _KEYS if getattr(recipe, name) not in (None, False)]


def with_defaults(recipe: LanguageModelRecipe) -> LanguageModelRecipe:
    """Return a recipe of an adapter with what its method takes by default."""
    values = {**_DEFAULTS["*"], **_DEFAULTS.get(recipe.method, {})}
    if recipe.trainable == "prompt":
        values |= _SOFT
    if recipe.method == _DISCRETE:
        values = {}
    missing = {name: value for name, value in values.items() if getattr(recipe, name) is None}
    return replace(recipe, **missing)


def is_adapting(recipe: LanguageModelRecipe) -> bool:
    """Return whether a recipe, settled, trains an adapter."""
    return recipe.adapts


def start_of(recipe: LanguageModelRecipe, model: LanguageFolder, sha256: str) -> Start:
    """Return the adapter that a settled recipe trains, new or from where it starts.

    Raises:
      InputError: a target is no linear layer, or the rank is larger than all of them.
      ModelError: the adapter to start from is damaged.
    """
    if recipe.trainable == "prompt":
        return Start(NO_ADAPTER, {})
    known = linear_targets(model)
    if recipe.start is not None:
        return _begun(recipe, known, model, sha256)
    rank = recipe.rank or _RANK
    alpha = _ALPHA_OVER_RANK * rank if recipe.alpha is None else recipe.alpha
    chosen = _chosen(recipe.targets, known, recipe.model)
    most = max(min(target.inputs, target.outputs) for target in chosen)
    if rank > most:
        raise InputError(
            f"rank is {rank}, but no layer of {recipe.model} has more than {most} inputs and "
            f"outputs; use a --rank of at most {most}."
        )
    kind = _KINDS[recipe.trainable]
    made = Adapter(kind, rank, alpha, chosen, recipe.rslora, model.base, sha256)
    return Start(made, None)


def recorded(recipe: LanguageModelRecipe, adapter: Adapter) -> LanguageModelRecipe:
    """Return a recipe that says what adapter it trains; that of a prompt has none."""
    if recipe.trainable == "prompt":
        return recipe
    return replace(
        recipe,
        trainable=adapter.kind,
        rank=adapter.rank,
        alpha=adapter.alpha,
        rslora=adapter.rslora,
    )


def linear_targets(model: LanguageFolder) -> tuple[Target, ...]:
    """Return the linear layers of a model's decoder, from the headers of its files if they tell.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    shapes = shapes_in_files(model) if model.config.get("model_type") in _TOLD else None
    if shapes is None or "model.norm.weight" not in shapes:
        from edge_train.runtimes.torch.adapted_network import linear_layers

        return linear_layers(model)
    apart = heads_of(shapes, model.vocabulary)
    paths = {name.removesuffix(".weight"): shape for name, shape in shapes.items()}
    return tuple(
        Target(path, *shape)
        for path, shape in paths.items()
        if len(shape) == 2 and not is_embedding(path) and f"{path}.weight" not in apart
    )


def _begun(
    recipe: LanguageModelRecipe, known: tuple[Target, ...], model: LanguageFolder, sha256: str
) -> Start:
    """Return the adapter in the folder that a recipe starts from.

    Raises:
      InputError: the recipe asks for another one, or it is of another base.
    """
    adapter, blocks = read_adapter(Path(required(recipe.start)).expanduser())
    own: dict[str, Any] = {
        "trainable": adapter.kind,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "rslora": adapter.rslora,
    }
    unset = ("auto", None, False)
    for name, value in own.items():
        wanted = getattr(recipe, name)
        if wanted not in (*unset, value):
            raise InputError(
                f"{name} is {wanted}, but the adapter in {recipe.start} has {value}; leave it out."
            )
    if recipe.targets is not None:
        chosen = {target.path for target in _chosen(recipe.targets, known, recipe.model)}
        if chosen != {target.path for target in adapter.targets}:
            raise InputError(
                f"targets is {recipe.targets!r}, but the adapter in {recipe.start} stands beside "
                f"{len(adapter.targets)} other layers; leave it out."
            )
    if adapter.base_sha256 not in ("", sha256) and not model.is_known_as(adapter.base_sha256):
        raise InputError(
            f"--from {recipe.start}: it was trained on a model with sha256 "
            f"{adapter.base_sha256[:12]}..., {recipe.model} has {sha256[:12]}...; name the model "
            "that it belongs to."
        )
    own_layers = {target.path: target for target in known}
    for target in adapter.targets:
        if own_layers.get(target.path) != target:
            raise InputError(
                f"--from {recipe.start}: stands beside layer {target.path!r} with {target.inputs} "
                f"inputs and {target.outputs} outputs, which {recipe.model} does not have; name "
                "the model that it belongs to."
            )
    return Start(replace(adapter, base=model.base, base_sha256=sha256), blocks)


def _chosen(wanted: str | None, known: tuple[Target, ...], model: str) -> tuple[Target, ...]:
    """Return the layers that the ends of paths name.

    Raises:
      InputError: an end names none.
    """
    if not known:
        raise InputError(
            f"{model}: has no linear layers that an adapter could stand beside; use --trainable "
            "all."
        )
    if wanted in (None, ALL_LINEAR):
        return known
    ends = [part.strip() for part in wanted.split(",") if part.strip()]
    if not ends:
        layers = ", ".join(sorted({target.path.rpartition(".")[2] for target in known}))
        raise InputError(f"targets is {wanted!r}, which names no layer; choose of {layers}.")
    for end in ends:
        if not any(_ends(target, end) for target in known):
            names = sorted({target.path.rpartition(".")[2] for target in known})
            raise InputError(
                f"targets names {end!r}, which no linear layer below the head is called; "
                f"{nearest(end, names)}."
            )
    return tuple(target for target in known if any(_ends(target, end) for end in ends))


def _ends(target: Target, end: str) -> bool:
    return f".{target.path}".endswith(f".{end}")
