"""Whether a run learns a word or a LoRA, which LoRA, and how its prompts are written.

A LoRA is trained as users of diffusers' and kohya's scripts expect: no vectors are learned beside
it, so that one file is all of it. Its prompts hold ordinary words, the name and then the class
("a photo of sks dog"); whoever loads the file writes the same.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.adapter import ALL_LINEAR, Adapter, Target, names_of
from edge_train.formats.artifact import Artifact
from edge_train.formats.diffusion_adapter import (
    DIFFUSERS_FILE,
    attention_layers,
    held_in,
    linear_layers,
    read_lora,
)
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.embedded import EMBEDDED
from edge_train.recipe import required
from edge_train.registry import nearest
from edge_train.tasks.personalize.captions import PLACE, file_name_of, without_class
from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.serving import Model

LORA_FOLDER = "lora"  # of a run
_RANK = 8
_METHODS = ("auto", "backprop", "adamw")
_KEYS = ("rank", "alpha", "targets", "rslora", "train_text_encoder")
# As diffusers' own script: every timestep, a constant rate; a step here is of four samples. The
# embedded model takes larger ones, learns what it never saw only where feed-forward layers do, and
# knows prompts of whole words only, `item` among them.
_DEFAULTS: Mapping[str, Any] = {"learning_rate": 1e-4, "schedule": "constant", "steps": 400}
_EMBEDDED: Mapping[str, Any] = {**_DEFAULTS, "learning_rate": 5e-4, "token": "item"}
# Versions of rules from which on the embedded model's is of all layers, and pictures of the class
# have other words than what is learned.
_ALL_LINEAR_FROM, _CLASS_APART_FROM = 5, 6


def settled(recipe: PersonalizeRecipe, model: Model, *, embedded: bool) -> PersonalizeRecipe:
    """Return a recipe whose keys go together, with what a LoRA takes by default.

    Args:
      embedded: the model is the embedded one.

    Raises:
      InputError: a key is of a LoRA and the run learns a word, or the other way round; or what it
        starts from is the other one.
    """
    if recipe.targets == "auto":  # as recipes of 0.1 say of every task, for another one's key
        recipe = replace(recipe, targets=None)
    _check_start(recipe)
    begun = recipe.start is not None  # then what is trained is that of the start
    or_a_word = "" if begun else ", or use --trainable token"
    if not recipe.adapts:
        if asked := [name for name in _KEYS if getattr(recipe, name) not in (None, False)]:
            instead = "leave it out" if begun else "add --trainable lora, or leave it out"
            raise InputError(
                f"{asked[0]} is of a LoRA, and this run learns the vectors of a word; {instead}."
            )
        return recipe
    if isinstance(model, Artifact):
        instead = "name the model folder that it was exported from"
        what = f"artifact {recipe.model}"
        if recipe.model == EMBEDDED:
            what, instead = f"{EMBEDDED} on this engine", "use --runtime torch"
        raise InputError(f"a LoRA needs gradients, and {what} has forward passes only; {instead}.")
    if recipe.method not in _METHODS:
        raise InputError(
            f"a LoRA is trained by exact gradients, not by method {recipe.method!r}; use --method "
            f"{' or '.join(_METHODS[1:])}{or_a_word}."
        )
    if recipe.preset != "default":
        raise InputError(
            f"a LoRA has no preset, and preset is {recipe.preset!r}; leave it out{or_a_word}."
        )
    if recipe.vectors != 1:
        raise InputError(
            f"vectors is {recipe.vectors}, but a LoRA is learned without vectors of its own; leave "
            f"it out{or_a_word}."
        )
    if recipe.relative_rate is not None:
        raise InputError(
            "relative_rate is a share of the start values, and half of a LoRA's are zero; use "
            "--learning-rate."
        )
    if recipe.method == "auto":
        recipe = replace(recipe, method="backprop")
    values = {"window": (0, len(model.alphas_cumprod)), **(_EMBEDDED if embedded else _DEFAULTS)}
    if embedded and recipe.start is None and recipe.rules >= _ALL_LINEAR_FROM:
        values["targets"] = ALL_LINEAR
    missing = {name: value for name, value in values.items() if getattr(recipe, name) is None}
    return replace(recipe, **missing)


def _check_start(recipe: PersonalizeRecipe) -> None:
    """Refuse to start a word from a LoRA, or a LoRA from what is none that can be gone on with.

    Raises:
      InputError: as described; a file that tells neither is refused by its reader.
    """
    if recipe.start is None:
        return
    held = held_in(path := Path(recipe.start).expanduser())
    if held == "dora":
        why = "it holds a DoRA, and this task learns a word or a LoRA; leave --from out"
    elif held == "kohya":
        beside = (path.parent / DIFFUSERS_FILE).is_file()
        instead = f"--from {path.parent}" if beside else f"the {DIFFUSERS_FILE} of the same LoRA"
        why = f"it holds a LoRA in names that are not diffusers'; name {instead}"
    elif held == "lora" and not recipe.adapts:
        why = (
            "it holds a LoRA, and this run learns the vectors of a word; use --trainable lora to "
            "go on with the LoRA, or leave --from out to learn a new word"
        )
    elif held == "word" and recipe.adapts:
        why = (
            "it holds the vectors of a word, and this run trains a LoRA; use --trainable token to "
            "go on with the word, or leave --from out to train a new LoRA"
        )
    else:
        return
    raise InputError(f"--from {recipe.start}: {why}.")


def trigger_of(recipe: PersonalizeRecipe) -> str:
    """Return the words that stand for what a LoRA learns: its name, and the class of an object.

    A name that is the class stands alone.

    >>> trigger_of(PersonalizeRecipe(token="<my-dog>", class_word="dog", trainable="lora"))
    'my-dog dog'
    """
    name, word = file_name_of(required(recipe.token)), required(recipe.class_word)
    return name if recipe.learn == "style" or name == word else f"{name} {word}"


def said_of(recipe: PersonalizeRecipe, tokenizer: PromptTokenizer) -> list[str]:
    """Return what the user should know of the words of a LoRA's prompts.

    Raises:
      InputError: the class has no words, or no others than what is learned.
    """
    word = required(recipe.class_word)
    ids = tokenizer.word_ids(word)
    if not ids:
        raise InputError("the class word is empty; name what is on the photos: --class dog.")
    same = recipe.keeps_class and trigger_of(recipe) == word
    if same and recipe.rules >= _CLASS_APART_FROM:
        raise InputError(
            f"prompts would say {word!r} both for what is learned and for pictures of the class, "
            "which would teach the opposite; name a --token that is not the class, or leave out "
            "class_photos and class_count."
        )
    lines = [f"prompts say {trigger_of(recipe)!r} for what is learned"]
    if unknown := in_pieces(word, ids):
        lines.append(unknown)
    return lines


def in_pieces(word: str, ids: Sequence[int]) -> str | None:
    """Return a line about a class that a model spells in pieces; None where it knows each word.

    Args:
      ids: tokens of the class.
    """
    if len(ids) <= len(word.split()):
        return None
    return (
        f"class word {word!r} is {len(ids)} tokens for this model, which may not know it; a more "
        "common word starts nearer"
    )


def spelled(recipe: PersonalizeRecipe, text: str) -> str:
    """Return a caption or prompt in which the trigger stands for every place.

    Where the class follows the place already, it is not written twice.

    >>> dog = PersonalizeRecipe(token="sks", class_word="dog", trainable="lora")
    >>> spelled(dog, "{} dog and {}"), spelled(dog, "a {}")
    ('sks dog and sks dog', 'a sks dog')
    """
    if recipe.learn != "style":
        text = without_class(text, required(recipe.class_word))
    return text.replace(PLACE, trigger_of(recipe))


def adapter_of(
    recipe: PersonalizeRecipe, model: ModelFolder, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Adapter, dict[str, Array]]:
    """Return the adapter of a recipe that trains one, and its start values.

    Args:
      shapes: of the model's weights, by name, the component first.

    Raises:
      InputError: a target is no linear layer, the rank is larger than all of them, or the LoRA to
        start from is another one.
    """
    known = linear_layers(shapes)
    if recipe.start is not None:
        return _begun(recipe, model, known)
    chosen = _chosen(recipe, known, _components(recipe, model))
    rank = recipe.rank or _RANK
    most = max(min(target.inputs, target.outputs) for target in chosen)
    if rank > most:
        raise InputError(
            f"rank is {rank}, but no layer of {recipe.model} that gets a LoRA has more than {most} "
            f"inputs and outputs; use a --rank of at most {most}."
        )
    alpha = float(rank) if recipe.alpha is None else recipe.alpha
    adapter = Adapter("lora", rank, alpha, chosen, recipe.rslora, recipe.model)
    return adapter, adapter.drawn(recipe.seed)


def recorded(
    recipe: PersonalizeRecipe, adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]
) -> PersonalizeRecipe:
    """Return a recipe that says which LoRA it trains, without the file that it starts from too.

    Args:
      shapes: as in `adapter_of`.
    """
    said = replace(recipe, rank=adapter.rank, alpha=adapter.alpha, rslora=adapter.rslora)
    if recipe.start is None or recipe.targets or recipe.train_text_encoder:
        return said
    known, paths = linear_layers(shapes), {target.path for target in adapter.targets}
    texts = any(not path.startswith("unet.") for path in paths)
    components = {t.path.partition(".")[0] for t in known} if texts else {"unet"}
    among = {target.path for target in known if target.path.partition(".")[0] in components}
    targets = ALL_LINEAR if paths == among else ",".join(_ends(paths, known))
    return replace(said, targets=targets, train_text_encoder=texts)


def _ends(paths: Set[str], known: Sequence[Target]) -> list[str]:
    """Return the shortest ends of names that together name these layers and none beside them."""
    others = [f".{target.path}" for target in known if target.path not in paths]
    found: set[str] = set()
    for path in sorted(paths):
        parts = path.split(".")
        firsts = [i for i, part in enumerate(parts) if not part.isdecimal()]
        ends = (".".join(parts[i:]) for i in reversed(firsts))
        found.add(next(end for end in ends if not any(o.endswith(f".{end}") for o in others)))
    return sorted(found)


def blocks_in(path: Path, adapter: Adapter) -> dict[str, Array]:
    """Return the blocks of an adapter from the file of diffusers that was written of it.

    Raises:
      InputError: it is no such file, or of another adapter.
    """
    pairs, _ = read_lora(path, adapter.targets)
    blocks: dict[str, Array] = {}
    for layer, (first, second) in pairs.items():
        blocks[names_of(layer)[0]] = first
        blocks[names_of(layer)[1]] = (second / np.float32(adapter.scale)).astype(np.float32)
    shapes = {name: block.shape for name, block in blocks.items()}
    if shapes != adapter.shapes():
        raise InputError(
            f"{path}: its LoRA stands beside {len(pairs)} layers and is not the one that the run "
            f"describes, of rank {adapter.rank} beside {len(adapter.targets)}; copy it again."
        )
    return blocks


def _begun(
    recipe: PersonalizeRecipe, model: ModelFolder, known: tuple[Target, ...]
) -> tuple[Adapter, dict[str, Array]]:
    """Return the adapter that a recipe starts from.

    Raises:
      InputError: the recipe asks for another one, or it is of another model.
    """
    path = Path(required(recipe.start)).expanduser()
    pairs, metadata = read_lora(path, known, partial(_check_base, recipe, model.sha256()))
    ranks = {first.shape[0] for first, _ in pairs.values()}
    if len(ranks) > 1:
        raise InputError(
            f"--from {path}: its layers have ranks {sorted(ranks)}, and one rank for all is "
            "trained; start without it."
        )
    rank = ranks.pop()
    alpha = _alpha_in(metadata, rank, path)
    said = {"rank": rank, "alpha": alpha, "rslora": metadata.get("rslora") == "true"}
    for name, value in said.items():
        if (wanted := getattr(recipe, name)) not in (None, False, value):
            raise InputError(
                f"{name} is {wanted}, but the LoRA in {path} has {value}; leave it out."
            )
    targets = tuple(target for target in known if target.path in pairs)
    wanted_paths = {t.path for t in _chosen(recipe, known, _components(recipe, model))}
    if (recipe.targets or recipe.train_text_encoder) and wanted_paths != pairs.keys():
        flags = {"--targets": recipe.targets, "--train-text-encoder": recipe.train_text_encoder}
        named = " and ".join(flag for flag, value in flags.items() if value)
        raise InputError(
            f"--from {path}: its LoRA stands beside {len(pairs)} layers, and this run asks for "
            f"{len(wanted_paths)}; leave out {named}, and it trains the same."
        )
    adapter = Adapter("lora", rank, alpha, targets, bool(said["rslora"]), recipe.model)
    return adapter, blocks_in(path, adapter)


def _check_base(recipe: PersonalizeRecipe, sha256: str, metadata: Mapping[str, str]) -> None:
    """Raise InputError if what a recipe starts from says that it was trained on another model.

    Args:
      sha256: of the recipe's model.
    """
    if (made := metadata.get("base_model_sha256", sha256)) != sha256:
        raise InputError(
            f"--from {recipe.start}: its LoRA was trained on model {metadata.get('base_model')} "
            f"(sha256 {made[:12]}...), not on {recipe.model} ({sha256[:12]}...); name that --model."
        )


def _alpha_in(metadata: Mapping[str, str], rank: int, path: Path) -> float:
    """Return the alpha that a file says; one without has scale 1.

    Raises:
      InputError: it is no number above zero.
    """
    said = metadata.get("alpha", str(rank))
    try:
        alpha = float(said)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < math.inf:
        raise InputError(f"--from {path}: its alpha is {said[:40]!r}; copy the LoRA again.")
    return alpha


def _components(recipe: PersonalizeRecipe, model: ModelFolder) -> tuple[str, ...]:
    return ("unet", *(model.text_encoders if recipe.train_text_encoder else ()))


def _chosen(
    recipe: PersonalizeRecipe, known: tuple[Target, ...], components: tuple[str, ...]
) -> tuple[Target, ...]:
    """Return the layers that get a LoRA.

    Raises:
      InputError: an end names none, or none is of the text encoder that shall be trained.
    """
    if recipe.targets is None:
        return attention_layers(known, components)
    among = tuple(target for target in known if target.path.partition(".")[0] in components)
    if recipe.targets == ALL_LINEAR:
        return among
    ends = [part.strip() for part in recipe.targets.split(",") if part.strip()]
    if not ends:
        raise InputError(
            f"targets is {recipe.targets!r}, which names no layer; name some, such as "
            f"to_q,to_k,to_v,to_out.0, or use {ALL_LINEAR}."
        )
    for end in ends:
        if not any(f".{target.path}".endswith(f".{end}") for target in among):
            names = sorted({_spoken(target.path) for target in among})
            raise InputError(
                f"targets names {end!r}, which no linear layer of a transformer block is called; "
                f"{nearest(end, [*names, ALL_LINEAR])}."
            )
    chosen = tuple(t for t in among if any(f".{t.path}".endswith(f".{end}") for end in ends))
    if recipe.train_text_encoder and all(target.path.startswith("unet.") for target in chosen):
        raise InputError(
            f"targets is {recipe.targets!r}, which names no layer of a text encoder, and "
            "train_text_encoder asks for some; add q_proj,k_proj,v_proj,out_proj to --targets, or "
            f"use {ALL_LINEAR}."
        )
    return chosen


def _spoken(path: str) -> str:
    """Return the end of a layer's name from its last word on.

    >>> _spoken("unet.mid_block.attentions.0.to_out.0"), _spoken("unet.a.1.to_q")
    ('to_out.0', 'to_q')
    """
    parts = path.split(".")
    last = max(i for i, part in enumerate(parts) if not part.isdecimal())
    return ".".join(parts[last:])
