"""A run that learns a prompt: its engine, what a search draws from, and what it leaves."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.arrays.types import Point
from edge_train.errors import InputError
from edge_train.export.modelfile import modelfile
from edge_train.formats.atomic import write_bytes
from edge_train.formats.chat_template import chat_template_of
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.prompt_words import Place, PromptWords
from edge_train.formats.tensor_store import save_tensors
from edge_train.methods import methods
from edge_train.methods.discrete import PROMPT_TOKENS
from edge_train.methods.method import TOKENS
from edge_train.rng import Key
from edge_train.runtimes.prompted import BLOCK, PromptedTokens
from edge_train.tasks.language_model.data import Data
from edge_train.tasks.language_model.ends import begin_text, end_texts
from edge_train.tasks.language_model.footprint import Shapes, width_of
from edge_train.tasks.language_model.prompting import (
    VECTORS_FILE,
    Prompt,
    words_of,
    write_prompt,
)
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

MODELFILE = "Modelfile"


def check_engine(recipe: LanguageModelRecipe) -> None:
    """Refuse a soft prompt on an engine that has none.

    Raises:
      InputError: as described.
    """
    if TOKENS not in methods.get(recipe.method).needs and recipe.runtime != "torch":
        raise InputError(
            f"method {recipe.method!r} trains a soft prompt, which is not for runtime "
            f"{recipe.runtime!r}; use --method discrete, or --runtime torch."
        )


class PromptRun:
    """What a run that learns a prompt does where others train weights.

    Args:
      data: returns those of the run, which know the prompt from `prepare` or `restore` on.

    Attributes:
      said: what the user should know of the files that were written; empty: nothing.
    """

    def __init__(
        self,
        recipe: LanguageModelRecipe,
        model: LanguageFolder,
        tokenizer: Tokenizer,
        data: Callable[[], Data],
    ) -> None:
        self._recipe, self._model, self._tokenizer, self._data = recipe, model, tokenizer, data
        self.said = ""

    @property
    def _soft(self) -> bool:
        return TOKENS not in methods.get(self._recipe.method).needs

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        """Return the shape of the trained block, before the data are read."""
        count = self._recipe.prompt_tokens or PROMPT_TOKENS
        if self._recipe.prompt_start is not None:
            words = self._tokenizer.encode(self._recipe.prompt_start, add_special_tokens=False)
            count = max(1, len(words.ids))
        return (count, width_of(shapes)) if self._soft else (count,)

    def put_before(self, frozen: Any) -> Any:
        """Return an engine with the prompt that the run begins with."""
        start = self.start
        if not self._soft:
            return PromptedTokens(frozen, start.ids, start.at)
        from edge_train.runtimes.torch.soft_prompt import SoftPrompt

        return SoftPrompt(frozen, start.ids, start.at)

    def propose(self, key: Key, ids: Sequence[int], position: int, count: int) -> NDArray[np.int64]:
        """Return tokens to try; see `estimators.discrete.Propose`."""
        return self.words.propose(key, ids, position, count)

    def facts(self) -> dict[str, Any]:
        """Return what the report says of the prompt that the run begins with."""
        return {"prompt_start": self.start.text, "prompt_tokens": len(self.start.ids)}

    def found(self, best: Point) -> tuple[dict[str, Any], str]:
        """Return the prompt that was found for the report, and a line about it."""
        if self._soft:
            count = len(best[BLOCK])
            return {}, f"the soft prompt has {count} vectors"
        text = self._of(best).text
        return {"prompt": text}, f"the prompt: {text}"

    def write(self, folder: Path, best: Point, sha256: str) -> dict[str, str]:
        """Write what was learned; return the names of the files."""
        model = self._model
        base = str(model.path.resolve()) if model.made is not None else model.base
        outputs = write_prompt(folder, self._of(best), base, sha256, soft=self._soft)
        if self._soft:
            save_tensors(folder / VECTORS_FILE, {BLOCK: best[BLOCK]}, {"base_sha256": sha256})
            return {**outputs, "prompt_vectors": VECTORS_FILE}
        return {**outputs, **self._modelfile(folder, self._of(best))}

    def _modelfile(self, folder: Path, prompt: Prompt) -> dict[str, str]:
        """Write what Ollama takes of a GGUF file with the prompt as the system's message."""
        model = self._model
        if model.made is None or prompt.role != "system":
            return {}
        template = chat_template_of(model, datetime.now().astimezone())
        text, said = modelfile(
            str(model.path.resolve()),
            None,
            template,
            begin=begin_text(self._tokenizer),
            stops=end_texts(model, template),
            system=prompt.text,
        )
        write_bytes(folder / MODELFILE, text.encode())
        self.said = said
        return {"modelfile": MODELFILE}

    def _of(self, best: Point) -> Prompt:
        """Return the prompt with the ids that were found; a soft one stands in for its first."""
        start = self.start
        if self._soft:
            return start
        ids = tuple(int(one) for one in best[BLOCK])
        return Prompt(ids, self.words.text(ids), start.role, start.at)

    @property
    def start(self) -> Prompt:
        """The prompt that the run begins with."""
        about: Mapping[str, Any] = self._data().kept.about["prompt"]
        return Prompt(tuple(about["ids"]), about["text"], about["role"], about["at"])

    @cached_property
    def words(self) -> PromptWords:
        """What it searches among."""
        kept = self._data().kept
        place = Place(**kept.about["prompt"]["place"])
        return words_of(self._recipe, self._tokenizer, place, kept.ids)
