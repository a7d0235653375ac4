"""The server's journal: that of a run, step by step. It is the model; no parameters lie here.

Its lines are those of any run folder (`records.journal`), so that `edge-train watch` and `report`
read them; a step has the numbers that all agreed on, and in `fleet` who was averaged. A step whose
evaluation is still to come has an event before it, so that what devices were told is never lost.
Weights that were agreed on lie in `rounds`, a file each, named with its hash by the step's line.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.fleet.rounds import START, evaluation_after, round_of, slopes_of
from edge_train.fleet.wire import Agreed, Values
from edge_train.formats.atomic import write_bytes
from edge_train.records import journal
from edge_train.records.folder import RunFolder
from edge_train.records.order import FORMAT_VERSION

_SKIPPED = "a loss of the step is not finite"
_EVALUATION_SKIPPED = "the evaluation loss is not finite"
_AGREED = "agreed on; the evaluation follows"

_SENT = ("up_bytes", "down_bytes")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """Weights that were agreed on, in a file.

    Attributes:
      size: of the file, in bytes.
    """

    path: Path
    sha256: str
    size: int

    def content(self) -> bytes:
        """Return them.

        Raises:
          RunFolderError: the file is missing, or was changed.
        """
        try:
            found = self.path.read_bytes()
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be read ({error.strerror}), and the journal names it."
            ) from error
        if hashlib.sha256(found).hexdigest() != self.sha256:
            raise RunFolderError(
                f"{self.path}: it was changed since it was agreed on; put the file back."
            )
        return found


Entry = Values | Kept | None


def message_of(entry: Entry) -> Agreed:
    """Return what a message says of a round."""
    return entry.content() if isinstance(entry, Kept) else entry


def size_of(entry: Entry) -> int:
    """Return about how many bytes of a message that takes."""
    if isinstance(entry, Kept):
        return 9 + entry.size
    return 5 + 8 * len(entry or ())


class Book:
    """Every round that was agreed on, in memory and, before anybody is told, on the disk.

    Attributes:
      start: the first record; None before the first round.
      entries: values of each round by its number; None: nobody measured anything finite.
      evals: evaluations in their order, the one before training first.
      steps: steps that are whole.
      over: why training is over; empty while it goes on.

    Raises:
      RunFolderError: the journal cannot be read or written.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        path = RunFolder(folder).journal
        self._rounds = folder / "rounds"
        self.entries: dict[int, Entry] = {}
        self.evals: list[float] = []
        self.start: Record | None = None
        self.over = ""
        self.steps = 0
        self._pending: dict[str, Any] | None = None  # a step without its evaluation
        self._opened = self._began = time.monotonic()
        records: Sequence[Record] = []
        intact: int | None = None
        if path.exists():
            records, intact = journal.read(path)
            if path.stat().st_size > intact:
                copy = RunFolder(folder).damaged_journal
                copy.write_bytes(path.read_bytes())
                say(
                    f"{path}: line {len(records) + 1} is torn, edited or not the one that follows; "
                    f"going on from the records before it (the whole file is kept as {copy.name})"
                )
        for record in records:
            if record["kind"] == "start":
                self.start = record
            elif record["kind"] == "step":
                self.steps += 1
            elif record["kind"] == "end":
                self.over = str(record.get("status", "done"))
        for number, values in entries_in(records, folder):
            self._note(number, values)
        if records and (step := _pending_in(records)) is not None:
            self._pending = dict(step)
        self._journal = journal.Journal(path, intact)
        if self.start is not None and not self.over:
            line = {"kind": "resume", "step": self.steps, "seconds": 0.0, "changes": {}}
            self._journal.append(line, durable=True)

    def begin(self, must: Record, about: Record, tag: str, values: Values, took: Record) -> None:
        """Write the first record: what all devices have in common, and where they begin."""
        evaluation, epsilon = values
        self.start = {
            "kind": "start",
            "version": FORMAT_VERSION,
            "recipe": {"sha256": must["recipe"], "values": {}},
            "rules": must["rules"],
            "data_sha256": None,
            "facts": {
                **{name: must[name] for name in ("model_sha256", "runtime", "dtype", "quant")},
                **{name: about[name] for name in ("task", "method", "seed", "versions")},
                "device": "fleet",
                "steps_planned": about["steps"],
                "cap_bytes": None,
            },
            "slope_check": {"epsilon": epsilon} if epsilon else None,
            **({"best_margin": margin} if (margin := about["best_margin"]) else {}),
            "eval": evaluation,
            "forwards": 0,
            "seconds": time.monotonic() - self._began,
            "peak_bytes": 0,
            "fleet": {
                "tag": tag,
                "must": dict(must),
                "about": dict(about),
                "epsilon": epsilon,
                **took,
            },
        }
        self._journal.append(self.start, durable=True)
        self._note(START, values)

    def agree_on_weights(
        self, number: int, content: bytes | None, loss: float, took: Record
    ) -> None:
        """Write the weights that were agreed on; an evaluation always follows."""
        if content is None:
            self.agree(number, None, True, took)
            return
        step = round_of(number).step
        self._rounds.mkdir(exist_ok=True)
        kept = Kept(_file(self._rounds, step), hashlib.sha256(content).hexdigest(), len(content))
        write_bytes(kept.path, content)
        weights = {"sha256": kept.sha256, "bytes": kept.size}
        line = {**self._step_line(step, (loss,), took), "weights": weights}
        self._pending = line
        event = {"kind": "event", "step": step - 1, "text": _AGREED, "agreed": line}
        self._journal.append(event, durable=True)
        self._note(number, kept)

    def agree(self, number: int, values: Values | None, evaluated: bool, took: Record) -> None:
        """Write what was agreed on in a round after the first.

        Args:
          evaluated: whether an evaluation follows the slopes of this step.
          took: who was averaged and what it took, for people.
        """
        step, what = round_of(number)
        if what == "slopes":
            line = self._step_line(step, values, took)
            if evaluated:
                self._pending = line
                event = {"kind": "event", "step": step - 1, "text": _AGREED, "agreed": line}
                self._journal.append(event, durable=True)
            else:
                self._write(line)
        else:
            assert self._pending is not None  # slopes come first
            if values is None and number == evaluation_after(step):
                bad: dict[str, Any] = {"loss": None, "scalars": [], "skipped": _EVALUATION_SKIPPED}
                self._pending = {**self._pending, **bad, "undone": self._pending}
                event = {"kind": "event", "step": step - 1, "text": _EVALUATION_SKIPPED}
                self._journal.append({**event, "agreed": self._pending}, durable=True)
            else:
                sent = {name: self._pending["fleet"][name] + took[name] for name in _SENT}
                fleet = {**self._pending["fleet"], **sent}
                line = {**self._pending, "eval": values[0] if values else None, "fleet": fleet}
                self._write(line)
                self._pending = None
        self._note(number, values)

    def _step_line(self, step: int, values: Values | None, took: Record) -> dict[str, Any]:
        loss, *scalars = values or (None,)
        seconds, self._began = time.monotonic() - self._began, time.monotonic()
        return {
            "kind": "step",
            "step": step,
            "loss": loss,
            "scalars": scalars,
            "forwards": 0,
            "backwards": 0,
            "peak_bytes": 0,
            "resident_bytes": 0,
            "seconds": seconds,
            "eval": None,
            "skipped": None if values else _SKIPPED,
            "fleet": dict(took),
        }

    def _write(self, line: Record) -> None:
        self._journal.append(line, durable=True)
        self.steps += 1

    def said(self, text: str) -> None:
        """Write an event."""
        if self.start is not None:
            self._journal.append({"kind": "event", "step": self.steps - 1, "text": text})

    def end(self, status: str) -> None:
        """Write that training is over."""
        if self.start is not None and not self.over:
            seconds = time.monotonic() - self._opened
            line = {"kind": "end", "step": self.steps, "status": status, "seconds_total": seconds}
            self._journal.append(line, durable=True)
        self.over = status

    def close(self) -> None:
        """Let go of the file."""
        self._journal.close()

    def _note(self, number: int, values: Entry) -> None:
        self.entries[number] = values
        if round_of(number).what != "slopes" and isinstance(values, tuple):
            self.evals.append(values[0])


def entries_in(records: Sequence[Record], folder: Path) -> Iterator[tuple[int, Entry]]:
    """Yield the rounds of a server's journal with their values.

    Args:
      folder: of the journal.
    """
    for record in records:
        if record["kind"] == "start" and "fleet" in record:
            yield START, (record["eval"], record["fleet"]["epsilon"])
        elif record["kind"] == "step":
            yield from _of_step(record, folder / "rounds")
    if (pending := _pending_in(records)) is not None:
        yield from _of_step(pending, folder / "rounds")


def _pending_in(records: Sequence[Record]) -> Record | None:
    """Return the step at the end of a journal whose evaluation is still to come."""
    for record in reversed(records):
        if record["kind"] == "step":
            return None
        if record["kind"] == "event" and "agreed" in record:
            found: Record = record["agreed"]
            return found
    return None


def _file(rounds: Path, step: int) -> Path:
    return rounds / f"{int(step)}.int8"


def _of_step(record: Record, rounds: Path) -> Iterator[tuple[int, Entry]]:
    step, undone = record["step"], record.get("undone")
    slopes = undone or record
    if weights := slopes.get("weights"):
        yield slopes_of(step), Kept(_file(rounds, step), weights["sha256"], weights["bytes"])
    else:
        is_skipped = slopes["skipped"] is not None
        yield slopes_of(step), None if is_skipped else (slopes["loss"], *slopes["scalars"])
    if undone:
        yield evaluation_after(step), None
    if record["eval"] is not None:
        yield evaluation_after(step, again=bool(undone)), (record["eval"],)
