"""A prompt of words that is searched in front of every text, the classifier frozen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.prompt_file import write_prompt_file
from edge_train.formats.prompt_words import Place, PromptWords, first_prompt, prompt_words
from edge_train.methods import methods
from edge_train.methods.discrete import PROMPT_TOKENS
from edge_train.methods.method import TOKENS
from edge_train.runtimes.prompted import PromptedTokens
from edge_train.tasks.classify.model import Model
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.classify.tokenizer import TextTokenizer

PROMPT = "prompt"  # in the metadata of a run's examples
_TEXT = "a"


def searches(recipe: ClassifyRecipe) -> bool:
    """Return whether a recipe searches a prompt.

    Raises:
      InputError: a word is of a prompt, and the run trains weights; or the other way round.
    """
    if TOKENS not in methods.get(recipe.method).needs:
        for name in ("prompt_tokens", "prompt_start"):
            if getattr(recipe, name) is not None:
                raise InputError(f"{name} is of --method discrete; use that, or leave it out.")
        return False
    if recipe.trainable not in ("all", "head"):
        raise InputError(
            f"method 'discrete' searches a prompt, --trainable says {recipe.trainable!r}; leave "
            "one of them out."
        )
    others = ("new_head", "difference_rank", "rank", "pair_column", "label_smoothing", "dropout")
    for name in others:
        if getattr(recipe, name):
            raise InputError(
                f"{name} is not for --method discrete, which changes no weights; leave it out."
            )
    return True


def check_trained(model: Model, new: Sequence[str]) -> None:
    """Refuse a classifier whose head no file holds: no prompt makes a random one better.

    Raises:
      InputError: as described.
    """
    names = new if isinstance(model, ClassifierFolder) else model.manifest.new_heads
    if names:
        raise InputError(
            f"{model.path}: has no trained head, and method 'discrete' trains none; train one "
            "first (--trainable head), then search a prompt for the model that is left."
        )


@dataclass(frozen=True)
class Prompted:
    """The prompt that a run begins with.

    Attributes:
      ids: its tokens.
      text: of these; a space and the user's text follow.
      place: where they stand.
    """

    ids: tuple[int, ...]
    text: str
    place: Place

    @classmethod
    def begin(cls, recipe: ClassifyRecipe, tokenizer: TextTokenizer) -> "Prompted":
        """Return what a recipe begins with.

        Raises:
          InputError: it is not read as its own tokens in front of a text.
        """
        backend, behind = tokenizer.backend, f" {_TEXT}"
        full = backend.encode(_TEXT).ids
        bare = backend.encode(_TEXT, add_special_tokens=False).ids
        at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
        place = Place("", behind, at, special=True)
        start, count = recipe.prompt_start, recipe.prompt_tokens
        return cls(*first_prompt(backend, place, start, count, PROMPT_TOKENS, recipe.seed), place)

    @classmethod
    def from_metadata(cls, about: Mapping[str, str]) -> "Prompted":
        """Return what `metadata` wrote.

        Raises:
          KeyError, ValueError: it is not there, or damaged.
        """
        found = json.loads(about[PROMPT])
        return cls(tuple(found["ids"]), found["text"], Place(**found["place"]))

    def metadata(self) -> dict[str, str]:
        """Return texts that `from_metadata` reads."""
        return {PROMPT: json.dumps(asdict(self))}

    def before(self, texts: Sequence[str]) -> list[str]:
        """Return texts with the prompt in front."""
        return [f"{self.text} {text}" for text in texts]

    def check(self, ids: NDArray[np.int32], data: object) -> None:
        """Refuse texts in which the prompt is cut or read otherwise.

        Raises:
          InputError: as described.
        """
        at = self.place.at
        own = ids[:, at : at + len(self.ids)]
        right = own.shape[1] == len(self.ids) and (own == np.array(self.ids)).all(axis=1)
        if not np.all(right):
            raise InputError(
                f"{data}: not every text holds the prompt {self.text!r} as the same "
                f"{len(self.ids)} tokens; use fewer --prompt-tokens, a longer --length, or another "
                "--prompt-start."
            )

    def words(
        self, recipe: ClassifyRecipe, tokenizer: TextTokenizer, ids: NDArray[Any]
    ) -> PromptWords:
        """Return the words that a search draws from; `ids` are those of the data."""
        used = set(np.unique(ids).tolist()) if recipe.options.get("words") == "data" else None
        return prompt_words(tokenizer.backend, self.place, used)

    def put_before(self, frozen: Any) -> PromptedTokens:
        """Return an engine with the prompt."""
        return PromptedTokens(frozen, self.ids, self.place.at)

    def found(self, tokenizer: TextTokenizer, block: NDArray[np.float32]) -> "Prompted":
        """Return the prompt of these ids."""
        ids = tuple(int(one) for one in block)
        text = PromptWords(tokenizer.backend, self.place, *(np.empty(0, np.int64),) * 2).text(ids)
        return replace(self, ids=ids, text=text)

    def write(self, folder: Path, base: str, sha256: str) -> dict[str, str]:
        """Write the prompt into a run folder; return the names of its files.

        Raises:
          RunFolderError: it cannot be written.
        """
        about = {"ids": self.ids, "text": self.text, "at": self.place.at}
        return write_prompt_file(folder, about | {"base": base, "base_sha256": sha256})
