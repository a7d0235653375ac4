"""`edge-train generate` of a language model: what it writes to prompts, as it is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from edge_train.errors import InputError
from edge_train.tasks.language_model.sampling import Sampling
from edge_train.tasks.language_model.speaking import (
    Speaker,
    first_draw,
    open_its_base,
    open_speaker,
)


def generate(
    run: Path,
    prompts: Sequence[str],
    out: TextIO,
    *,
    sampling: Sampling,
    most: int,
    seed: int,
    threads: int | None,
    raw: bool,
    base: bool,
    model: str | None = None,
) -> None:
    """Write what a trained model answers to each prompt, piece by piece.

    Args:
      prompts: each a message to a model that has a chat template; else the beginning of a text,
        with a new line behind it where training put one; with `raw`, as it stands.
      out: gets the answers; above each a line that says which it is, where there are several.
      most: tokens of an answer.
      base: the answers of the model that training began with, too; one model is open at a time.
      model: where that one is now; None: where it was.

    Raises:
      InputError: a prompt is empty, or leaves no room for an answer.
      ModelError, RunFolderError: the run or its base cannot be used.
    """
    if not all(prompt.strip() for prompt in prompts):
        raise InputError("--prompt is empty; write what the model shall answer or go on from.")
    opened = (open_speaker, open_its_base) if base else (open_speaker,)
    for open_one in opened:
        speaker = open_one(run, threads, model)
        for number, prompt in enumerate(prompts):
            ids = _ids(speaker, prompt, raw)
            if len(opened) > 1 or len(prompts) > 1:
                out.write(f"--- {speaker.name}: {prompt}\n")
            for piece in speaker.answer(ids, sampling, most, first_draw(seed, number)):
                out.write(piece)
                out.flush()
            out.write("\n")
            out.flush()
        speaker.engine.close()


def _ids(speaker: Speaker, prompt: str, raw: bool) -> list[int]:
    ids = speaker.ids_of_text(prompt) if raw else speaker.ids_of_prompt(prompt)
    speaker.check_length(ids)
    return ids
