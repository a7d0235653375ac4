"""Devices of a fleet inside one process: for tests, and to see what a fleet would learn.

Each is a run in a thread, in a folder of its own; messages are the bytes that would be sent.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge_train.errors import EdgeTrainError
from edge_train.fleet.adapters import Local
from edge_train.fleet.calls import Call
from edge_train.fleet.company import Fleet
from edge_train.fleet.privacy import Ledger, Privacy
from edge_train.fleet.wire import read_asked
from edge_train.protocols import Company, StepRecord
from edge_train.recipe import Recipe
from edge_train.records.folder import RunFolder
from edge_train.run import session
from edge_train.run.observer import Best


class Silent:
    """An observer that says nothing."""

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Do nothing."""

    def stepped(self, record: StepRecord, best: Best | None) -> None:
        """Do nothing."""

    def said(self, text: str) -> None:
        """Do nothing."""

    def ended(self, status: str) -> None:
        """Do nothing."""


class Killed(Exception):
    """A device ended at once, with nothing saved, as `kill -9` does it."""


class QueueCalls:
    """Messages through a queue; None in it ends the device at once.

    Attributes:
      listening: set when the device has loaded its model and waits for messages.
    """

    def __init__(self) -> None:
        self.listening = threading.Event()
        self.queue: queue.Queue[Call | None] = queue.Queue()

    def next(self, seconds: float) -> Call | None:
        """Return the next message; None if there is none within some seconds.

        Raises:
          Killed: the device ends here.
        """
        self.listening.set()
        try:
            call = self.queue.get(timeout=seconds)
        except queue.Empty:
            return None
        if call is None:
            raise Killed
        return call


class LocalDevice:
    """A device: a run in a thread, new or resumed.

    Attributes:
      error: the sentence with which it ended; empty while it goes on, or where it is done.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        privacy: Privacy | None = None,
        exchange: str = "slopes",
    ) -> None:
        self._recipe = replace(recipe, out=str(folder))
        self.folder, self.error = folder, ""
        self._privacy, self._exchange = privacy, exchange
        self._ledger = Ledger(folder.with_name(f"{folder.name}-released.json") if privacy else None)
        self.calls = QueueCalls()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        company: Company = Fleet(self.calls, self._privacy, ledger=self._ledger)
        if self._exchange == "adapters":
            company = Local(self.calls)
        try:
            if RunFolder(self.folder).journal.exists():
                session.resume(self.folder, {}, Silent(), company=company)
            else:
                session.run(self._recipe, Silent(), company=company)
        except EdgeTrainError as error:
            self.error = str(error)
        except Killed:
            self.error = "killed"

    def kill(self) -> None:
        """End it at once: no checkpoint, no end of its journal."""
        self.calls.queue.put(None)
        self.thread.join()

    def ask(self, content: bytes, answered: Callable[[bytes], None]) -> None:
        """Hand it a message."""
        self.calls.queue.put(Call(read_asked(content), answered))


class LocalGrid:
    """Devices by their numbers.

    Args:
      change: what becomes of an answer on its way: None is lost. For tests of what goes wrong.
    """

    def __init__(
        self,
        devices: Mapping[int, LocalDevice],
        change: Callable[[int, bytes], list[bytes]] = lambda node, content: [content],
    ) -> None:
        self.devices, self._change = dict(devices), change

    def nodes(self) -> list[int]:
        """Return the numbers of devices that go on."""
        return [node for node, device in self.devices.items() if device.thread.is_alive()]

    def exchange(self, messages: Mapping[int, bytes], seconds: float) -> list[tuple[int, bytes]]:
        """Return what was answered within some seconds, or by all."""
        answers: queue.Queue[tuple[int, bytes]] = queue.Queue()
        for node, content in messages.items():
            self.devices[node].ask(content, partial(_put, answers, node))
        found: list[tuple[int, bytes]] = []
        waiting, end = set(messages), time.monotonic() + seconds
        while waiting and time.monotonic() < end:
            try:
                node, content = answers.get(timeout=0.05)
            except queue.Empty:
                waiting &= set(self.nodes())
                continue
            waiting.discard(node)
            found += [(node, one) for one in self._change(node, content)]
        return found


def _put(answers: "queue.Queue[tuple[int, bytes]]", node: int, content: bytes) -> None:
    answers.put((node, content))
