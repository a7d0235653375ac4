"""A trained language model that writes: a run opened, a text answered token by token."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, TemplateError
from edge_train.export.adapter_changes import changes_of
from edge_train.formats.chat_template import ChatTemplate, Message, chat_template_of
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.tensor_store import load_tensors
from edge_train.memory.machine import cores, machine_bytes
from edge_train.rng import Key
from edge_train.tasks.device import settle
from edge_train.tasks.language_model import TASK
from edge_train.tasks.language_model.adapting import NO_ADAPTER
from edge_train.tasks.language_model.ends import ends_of
from edge_train.tasks.language_model.kept import about_of
from edge_train.tasks.language_model.learned import Learned, base_of, learned_in, open_base
from edge_train.tasks.language_model.passages import ends_bare
from edge_train.tasks.language_model.prompting import (
    BLOCK,
    VECTORS_FILE,
    Prompt,
    with_prompt,
)
from edge_train.tasks.language_model.sampling import Sampling
from edge_train.units import shown

_FLOAT_BYTES, _MOST_SHARE = 4, 0.5  # of a weight; of this machine's memory, for weights
BASE_FLAG = "--model"  # of the commands that speak, where `--base` has the base answer, too
_DRAWN = -9  # the step of the key that tokens are drawn from


class Engine(Protocol):
    """A model that can be asked for one more token."""

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, (vocabulary,)."""

    def close(self) -> None:
        """Let go of the model."""


@dataclass(frozen=True)
class Speaker:
    """A model with its tokenizer and template.

    Attributes:
      name: for people.
      prompt: that was learned to stand in front of every chat and text; None: none was.
      new_line: training put one behind prompts without white space at the end.
    """

    name: str
    model: LanguageFolder
    tokenizer: Tokenizer
    template: ChatTemplate | None
    engine: Engine
    prompt: Prompt | None = None
    new_line: bool = False

    def ids_of_prompt(self, prompt: str) -> list[int]:
        """Return the tokens of a user's message, or of a text where the model has no template.

        Such a text ends as prompts did in training, which had their completions behind them.

        Raises:
          InputError: as `ids_of_chat` and `ids_of_text`.
        """
        if self.template is not None:
            return self.ids_of_chat([{"role": "user", "content": prompt}])
        return self.ids_of_text(f"{prompt}\n" if self.new_line and ends_bare(prompt) else prompt)

    def ids_of_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat that the model is to answer.

        Raises:
          InputError: the model has no chat template, or that refuses the chat; or what was said
            holds bytes that are no UTF-8.
        """
        if self.template is None:
            raise InputError(
                f"{self.name}: the model has no chat template; continue a text with "
                "`edge-train generate RUN --prompt TEXT`."
            )
        for message in messages:
            _check_letters(str(message.get("content")))
        if self.prompt is not None:
            messages = with_prompt(messages, self.prompt.text, self.prompt.role)
        try:
            text = self.template.text(messages, open_=True)
        except TemplateError as error:
            raise InputError(f"{self.name}: its chat template {error}.") from error
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def ids_of_text(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer puts before it.

        What it puts behind a text is left out: the text goes on.

        Raises:
          InputError: the text holds bytes that are no UTF-8.
        """
        _check_letters(text)
        if self.prompt is not None:
            text = f"{self.prompt.text}\n\n{text}"
        full = list(self.tokenizer.encode(text).ids)
        bare = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
        return full[: at + len(bare)]

    def check_length(self, ids: Sequence[int]) -> None:
        """Refuse a text that leaves no room for an answer.

        Raises:
          InputError: as described.
        """
        if not ids:
            raise InputError("the prompt is empty; write what the text begins with.")
        if len(ids) >= self.model.positions:
            raise InputError(
                f"the prompt has {len(ids)} tokens, and the model has {self.model.positions} "
                "positions for prompt and answer; write a shorter one."
            )

    def answer(
        self, ids: Sequence[int], sampling: Sampling, most: int, draw: np.random.Generator
    ) -> Iterator[str]:
        """Yield a text piece by piece, each of whole characters, until it ends.

        Args:
          ids: what stands before it; fewer than the model's positions.
          most: tokens of the answer.

        Raises:
          ModelError: the model computes values that are no numbers.
        """
        written = list(ids)
        stream = DecodeStream(skip_special_tokens=True)
        for _ in range(min(most, self.model.positions - len(written))):
            logits = self.engine.next_logits(written)
            if not np.isfinite(logits).all():
                raise ModelError(f"{self.name}: its outputs are not finite; train it again.")
            token = sampling.choose(logits, written, draw)
            if token in self.ends:
                return
            written.append(token)
            if token < self.tokenizer.get_vocab_size() and (
                piece := stream.step(self.tokenizer, token)
            ):
                yield piece

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return ends_of(self.model, self.tokenizer, self.template)


def open_speaker(
    run: Path, threads: int | None, base: str | None = None, flag: str = BASE_FLAG
) -> Speaker:
    """Return what a run learned, ready to write.

    Args:
      base: where the model that training began with is now; None: where it was.
      flag: that a user says so with; empty: the command has none.

    Raises:
      InputError, ModelError, RunFolderError: as `learned_in` and `base_of`; or no engine can.
    """
    learned, about = learned_in(run), about_of(run)
    if learned.model is not None:
        return _speaker(learned.name, open_base(str(learned.model)), None, threads, about)
    return _speaker(learned.name, base_of(learned, base, flag), learned, threads, about)


def open_its_base(run: Path, threads: int | None, base: str | None = None) -> Speaker:
    """Return the model that a run began with, ready to write; it is asked as what was learned.

    Args:
      base: as `open_speaker`.

    Raises:
      InputError, ModelError, RunFolderError: as `open_speaker`.
    """
    model = base_of(learned_in(run), base, BASE_FLAG)
    if not model.files:
        raise InputError(f"{run}: began with random weights, so there is no base to compare with.")
    return _speaker("base", model, None, threads, about_of(run))


def first_draw(seed: int, number: int) -> np.random.Generator:
    """Return the random numbers of one answer."""
    return Key(seed, _DRAWN).generator("answer", str(number))


def _speaker(
    name: str,
    model: LanguageFolder,
    learned: Learned | None,
    threads: int | None,
    about: Mapping[str, Any],
) -> Speaker:
    template = chat_template_of(model, datetime.now().astimezone())
    count = min(threads or cores(), cores())
    if find_spec("torch") is not None and find_spec("transformers") is not None:
        engine = on_torch(model, learned, count)
    else:
        engine = on_numpy(model, learned, count)
    kept = None if learned is None else learned.prompt
    prompt = None if kept is None else kept.prompt
    new_line = about.get("new_line") is True
    return Speaker(name, model, model.tokenizer(), template, engine, prompt, new_line)


def _check_letters(text: str) -> None:
    """Refuse bytes that were no UTF-8: a command line and a pipe hand them on as half letters.

    Raises:
      InputError: the first of them.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = f"0x{ord(text[error.start]) & 0xFF:02x}"
        raise InputError(
            f"byte {byte} after {error.start} letters of {shown(text[: error.start])} is no UTF-8; "
            "write the text in UTF-8 (iconv -f latin1 -t utf-8)."
        ) from error


def on_torch(model: LanguageFolder, learned: Learned | None, threads: int) -> Engine:
    """Return an engine of torch.

    An adapter is merged into float weights, which costs a token nothing. Where these would take
    more than half of this machine, weights stay in their file, and every token reads them all.
    A card that has room for them holds them as they are stored, with the adapter beside them.
    """
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.card import pick_device, products_type
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    if learned is not None and learned.prompt is not None and learned.prompt.soft:
        return _with_vectors(model, learned, threads)
    adapter = None if learned is None else learned.adapter
    blocks = {} if learned is None else learned.blocks
    numbers = sum(math.prod(e.shape) for file in model.files for e in file.entries.values())
    stored = sum(file.path.stat().st_size for file in model.files)
    device, _ = settle("auto", TASK.name, stored)
    if device == "cuda" or _FLOAT_BYTES * numbers > _MOST_SHARE * (machine_bytes() or math.inf):
        return AdaptedLanguageModel.open(
            model,
            adapter or NO_ADAPTER,
            quant="none",
            threads=threads,
            seed=0,
            blocks=blocks,
            lean=device == "cpu",
            device=device,
            dtype=products_type(pick_device(device)),
        )
    opened = TorchLanguageModel.open(model, quant="none", threads=threads, seed=0)
    if adapter is None:
        return opened
    for layer, change in changes_of(adapter, blocks).items():
        block = f"{layer}.weight"
        if block not in opened.parameters or opened.parameters[block].shape != change.shape:
            raise InputError(
                f"the adapter changes layer {layer!r} of {list(change.shape)}, which {model.path} "
                "does not have; it belongs to another model."
            )
        weight, start = opened.parameters[block], 0
        for rows in change.merged(weight):
            weight[start : start + len(rows)] = rows
            start += len(rows)
    return opened


def _with_vectors(model: LanguageFolder, learned: Learned, threads: int) -> Engine:
    """Return an engine of torch with a soft prompt.

    Raises:
      ModelError: its vectors are damaged.
    """
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.soft_prompt import SoftPrompt

    assert learned.prompt is not None
    assert learned.folder is not None
    prompt, path = learned.prompt.prompt, learned.folder / VECTORS_FILE
    vectors = load_tensors(path)[0].get(BLOCK)
    frozen = AdaptedLanguageModel.open(
        model, NO_ADAPTER, quant="none", threads=threads, seed=0, blocks={}
    )
    width = frozen.words().embedding_dim
    if vectors is None or vectors.shape != (len(prompt.ids), width):
        raise ModelError(
            f"{path}: does not hold {len(prompt.ids)} vectors of {width} numbers; resume the run "
            "again."
        )
    return SoftPrompt(frozen, prompt.ids, prompt.at, vectors)


def on_numpy(model: LanguageFolder, learned: Learned | None, threads: int) -> Engine:
    """Return an engine of NumPy: weights stay in their file, and every token reads them all.

    Raises:
      InputError: a soft prompt was learned, which it does not compute.
      ModelError: the model is not of the Llama family.
    """
    if learned is not None and learned.prompt is not None and learned.prompt.soft:
        raise InputError(
            f"{learned.name}: learned a soft prompt, which needs torch; `pip install "
            "edge-train[desk]` brings it."
        )
    from edge_train.runtimes.numpy.language_model import NumpyLanguageModel

    adapter = None if learned is None else learned.adapter
    blocks = {} if learned is None else learned.blocks
    opened = NumpyLanguageModel.open(model, adapter or NO_ADAPTER, seed=0, blocks=blocks)
    opened.use_threads(threads)
    return opened
