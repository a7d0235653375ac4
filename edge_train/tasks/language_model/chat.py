"""`edge-train chat`: a conversation with a trained language model, line by line.

Lines are read from a terminal, or from whatever stands in for one; then no marks are written, and
the answers alone are the output.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from edge_train.errors import INTERRUPTED, InputError
from edge_train.tasks.language_model.sampling import Sampling
from edge_train.tasks.language_model.speaking import (
    Speaker,
    first_draw,
    open_its_base,
    open_speaker,
)

_ENDS, _AGAIN = ("/bye", "/exit", "/quit"), "/clear"
_GREETING = "/bye ends it, /clear forgets it, Ctrl-C stops an answer"
_ANSWER_SHARE = 4  # of the positions, a quarter is kept for an answer


@dataclass
class Conversation:
    """What was said to one model and by it.

    Attributes:
      speaker: the model.
      messages: in turn.
      forgotten: whether the oldest ones were dropped for want of positions.
    """

    speaker: Speaker
    messages: list[dict[str, str]] = field(default_factory=list)
    forgotten: bool = False

    def ids(self, most: int) -> list[int]:
        """Return the tokens of the conversation, the oldest turns dropped where they do not fit.

        The system's message stays.

        Raises:
          InputError: the last message alone is too long.
        """
        positions = self.speaker.model.positions
        room = positions - min(most, positions // _ANSWER_SHARE)
        ids = self.speaker.ids_of_chat(self.messages)
        while len(ids) > room:
            first = 1 if self.messages[0]["role"] == "system" else 0
            if len(self.messages) - first < 3:  # a turn, and the message that is to be answered
                self.speaker.check_length(ids)
                break
            del self.messages[first : first + 2]
            self.forgotten = True
            ids = self.speaker.ids_of_chat(self.messages)
        return ids


def chat(
    run: Path,
    *,
    sampling: Sampling,
    most: int,
    seed: int,
    threads: int | None,
    system: str | None,
    base: bool,
    model: str | None = None,
    lines: TextIO | None = None,
    out: TextIO | None = None,
) -> int:
    """Talk until the lines end; return the exit status.

    Args:
      most: tokens of an answer.
      system: a message that stands before all others.
      base: every line is answered by the model that training began with, too, in a conversation of
        its own; both models are in memory.
      model: where that one is now; None: where it was.
      lines, out: None: those of this process.

    Raises:
      InputError, ModelError, RunFolderError: the run cannot be talked to.
    """
    lines, out = lines or sys.stdin, out or sys.stdout
    if lines is None or out is None:
        raise InputError("there is no terminal to talk in; use `edge-train generate RUN --prompt`.")
    begun = [] if system is None else [{"role": "system", "content": system}]
    opens = (open_speaker, open_its_base) if base else (open_speaker,)
    opened = [open_one(run, threads, model) for open_one in opens]
    talks = [Conversation(one, list(begun)) for one in opened]
    for talk in talks:  # a template that refuses is a sentence before the first line
        ids = talk.speaker.ids_of_chat([*begun, {"role": "user", "content": "a"}])
        if begun and len(ids) >= talk.speaker.model.positions:
            raise InputError(
                f"with --system a prompt has {len(ids)} tokens before anything is said, and the "
                f"model has {talk.speaker.model.positions} positions; shorten --system."
            )
    shown = lines.isatty() and out.isatty()
    if shown:
        out.write(f"{_GREETING}\n")
    number = 0
    for line in _typed(lines, out if shown else None):
        if line is None:
            return INTERRUPTED
        if not line.strip():
            continue
        if line.strip() in _ENDS:
            break
        if line.strip() == _AGAIN:
            talks = [Conversation(one, list(begun)) for one in opened]
            continue
        for talk in talks:
            if len(talks) > 1:
                out.write(f"--- {talk.speaker.name}\n")
            _turn(talk, line, out, sampling, most, seed, number)
        number += 1
    return 0


def _turn(
    talk: Conversation,
    line: str,
    out: TextIO,
    sampling: Sampling,
    most: int,
    seed: int,
    number: int,
) -> None:
    """Have one line answered; a line that cannot be answered is taken back."""
    before = list(talk.messages)
    talk.messages.append({"role": "user", "content": line})
    try:
        ids = talk.ids(most)
    except InputError as error:
        talk.messages = before
        print(f"edge-train: {error}", file=sys.stderr)
        return
    if talk.forgotten:
        talk.forgotten = False
        print("edge-train: the oldest turns no longer fit and were dropped.", file=sys.stderr)
    pieces = []
    with _stoppable() as stopped:
        for piece in talk.speaker.answer(ids, sampling, most, first_draw(seed, number)):
            pieces.append(piece)
            out.write(piece)
            out.flush()
            if stopped:
                break
    out.write("\n")
    out.flush()
    talk.messages.append({"role": "assistant", "content": "".join(pieces)})


@contextmanager
def _stoppable() -> Iterator[Sequence[bool]]:
    """Yield a list that is no longer empty once Ctrl-C was typed, which ends nothing else here."""
    stopped: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _typed(lines: TextIO, shown: TextIO | None) -> Iterator[str | None]:
    """Yield lines without their ends; None where Ctrl-C was typed while one was waited for.

    Args:
      shown: gets a mark before each line; None: no one sees it.
    """
    while True:
        if shown is not None:
            shown.write("> ")
            shown.flush()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            line = lines.readline()
        except KeyboardInterrupt:
            if shown is not None:
                shown.write("\n")
            yield None
            return
        except UnicodeDecodeError as error:
            raise InputError(f"a line is not {error.encoding}; type text.") from error
        finally:
            signal.signal(signal.SIGINT, before)
        if not line:
            if shown is not None:
                shown.write("\n")
            return
        yield line.rstrip("\r\n")
