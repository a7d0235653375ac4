"""What a journal says by now: read once, on from where the last look ended."""

import os
from collections import deque
from contextlib import suppress
from typing import Any

from edge_train.errors import MISSED
from edge_train.records.best import replaces_best
from edge_train.records.lines import LONGEST_LINE, decode
from edge_train.records.order import Order
from edge_train.watch.curve import Curve
from edge_train.watch.inside import open_file

_SLICE_BYTES = 1 << 18  # read at once
_MOST_BYTES = 1 << 21  # of one look, about 50 ms; a long journal takes several looks
_MOST_EVENTS = 12
_RECENT_STEPS = 20  # the pace is their median: one slow step does not move it


class Live:
    """A run's journal, as far as it was read.

    A journal that was replaced or cut is read anew; one that is damaged is shown up to there, until
    somebody changes it: who goes on with such a run cuts the damage off first.

    Attributes:
      status: of the last record that says one; `running` while steps follow.
      behind: whether there is more to read than one look does.
      damaged: whether a line cannot be read that is not the last one.
      stamp: the journal's file, size and time at the last look.
    """

    def __init__(self) -> None:
        self.stamp: tuple[int, int, int] | None = None
        self._restart(0)

    def _restart(self, inode: int) -> None:
        self._inode, self._offset, self._order = inode, 0, Order()
        self.behind = self.damaged = False
        self.facts: dict[str, Any] = {}
        self.status = ""
        self.cap: int | None = None
        self.planned: Any = None  # steps; an older journal may say anything
        self.steps = self.held = self.peak = self.resumed = 0
        self.loss: float | None = None
        self.best: list[float] | None = None
        self.first: float | None = None  # evaluation
        self.margin = 0.0  # of the best one, see `records.best`
        self.eval: float | None = None
        self.seconds = 0.0
        self.devices: list[Any] | None = None  # of a fleet's last step: how many, bytes up, down
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._events: deque[list[Any]] = deque(maxlen=_MOST_EVENTS)
        self._losses, self._evals = Curve(), Curve()
        self._memory = Curve(peak=True)

    def look(self, root: str, *parts: str) -> None:
        """Read what was appended since the last look.

        Raises:
          OSError: there is no journal.
        """
        file, found = open_file(root, *parts)
        try:
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if stamp == self.stamp and not self.behind:
                return
            is_other = found.st_ino != self._inode or found.st_size < self._offset
            if is_other or (self.damaged and stamp != self.stamp):
                self._restart(found.st_ino)
            self.stamp = stamp
            self.behind = not self._read(file)
        finally:
            os.close(file)

    def _read(self, file: int) -> bool:
        """Read on; return whether that was all, or all that can be read."""
        end, rest = self._offset + _MOST_BYTES, b""
        while not self.damaged and self._offset < end:
            piece = os.pread(file, _SLICE_BYTES, self._offset + len(rest))
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                try:
                    record = decode(line + b"\n")
                    self._order.check(record)
                except ValueError:
                    self.damaged = True
                    return True
                self._offset += len(line) + 1
                self._add(record)
            if len(rest) > LONGEST_LINE:
                self.damaged = True
            if not piece:
                return True
        return self.damaged

    def _add(self, record: dict[str, Any]) -> None:
        """Count a record; `Order` has seen that its numbers are numbers."""
        kind = record["kind"]
        if kind == "start":
            self.facts = record.get("facts", {})
            self.cap, self.planned = self.facts.get("cap_bytes"), self.facts.get("steps_planned")
            self.margin = record.get("best_margin", 0.0)
            self._evaluated(0, record.get("eval"))
            self.status = "running"
        elif kind == "step":
            self._step(record)
        elif kind == "resume":
            self.status, self.resumed = "running", self.resumed + 1
            if record.get("cap_bytes", self.cap) != self.cap:
                self.cap, self.peak = record["cap_bytes"], 0
            self._events.append([record["step"], "resumed"])
        elif kind == "extend":
            self.planned = record["steps"]
            self._events.append([record["step"], f"made longer: {record['steps']} steps in all"])
        elif kind == "fit":
            self.planned = record["steps"]
        elif kind == "event" and "agreed" not in record:  # of a fleet: half a step
            self._events.append([record.get("step"), record["text"][:500]])
        elif kind == "end":
            self.status, self.seconds = str(record["status"]), record["seconds_total"]
            self._events.append([record.get("step"), f"ended: {self.status}"[:100]])
        self.peak = max(
            self.peak, record.get("peak_bytes") or 0, record.get("measured_peak_bytes") or 0
        )

    def _step(self, record: dict[str, Any]) -> None:
        step = record["step"]
        self.status, self.steps = "running", step + 1
        self.held = record["resident_bytes"]
        self._recent.append(record["seconds"])
        if self.held:  # none of a fleet, whose devices hold their own
            self._memory.add(step, self.held)
        if isinstance(took := record.get("fleet"), dict):
            self.devices = [took.get(name) for name in ("count", "up_bytes", "down_bytes")]
        if record["loss"] is not None:
            self.loss = record["loss"]
            self._losses.add(step, record["loss"])
        self._evaluated(step + 1, record["eval"])
        if record.get("skipped") and record["skipped"] != MISSED:
            self._events.append([step, f"rolled back: {record['skipped']}"[:500]])

    def _evaluated(self, step: int, loss: float | None) -> None:
        if loss is None:
            return
        self.eval = loss
        self._evals.add(step, loss)
        first = loss if self.first is None else self.first
        self.first = first
        if self.best is None or replaces_best(loss, self.best[1], first, self.margin):
            self.best = [step, loss]

    def summary(self) -> dict[str, Any]:
        """Return what a row of the list shows."""
        pace = sorted(self._recent)[len(self._recent) // 2] if self._recent else None
        left = None
        if pace is not None and isinstance(self.planned, int):
            left = max(self.planned - self.steps, 0) * pace
        return {
            **{name: str(self.facts.get(name) or "")[:200] for name in ("task", "method", "model")},
            "steps": self.steps,
            "planned": self.planned if isinstance(self.planned, int) else None,
            "pace": pace,
            "left": left,
            "loss": self.loss,
            "eval": self.eval,
            "best": self.best,
            "cap": self.cap,
            "held": self.held,
            "peak": self.peak,
            "devices": self.devices,
            "damaged": self.damaged,
            "behind": self.behind,
        }

    def curves(self) -> dict[str, Any]:
        """Return what the page of a run draws."""
        found: dict[str, Any] = {"events": list(self._events)}
        with suppress(OverflowError):  # numbers of a journal may be as large as a float goes
            found |= {
                "losses": self._losses.points(),
                "evals": self._evals.points(),
                "memory": self._memory.points(),
            }
        return found
