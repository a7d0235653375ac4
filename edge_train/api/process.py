"""The process of a run: started from any thread, tied to this program, told to stop once."""

import atexit
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edge_train.api.given import remove
from edge_train.api.said import Said
from edge_train.errors import INTERRUPTED, STOPPED, EdgeTrainError, OutOfMemory, TrainingStopped
from edge_train.memory.fresh import fresh
from edge_train.records.folder import RunFolder

_TIED = (
    "from edge_train.process.tied import tie; tie(0); "
    "from edge_train.__main__ import main; sys.exit(main())"
)
_PREFIX = "edge-train: "
_SHOWN_LINES = 20  # of a process that ended without a sentence


def command(words: Sequence[str]) -> list[str]:
    """Return the command line of an `edge-train` that stops when this program is gone.

    It imports what this program would, as its path is now.
    """
    return [sys.executable, *fresh(_TIED), *words]


class Process:
    """The process of a run, and what remains to be done when it is over.

    Args:
      words: of `edge-train`.
      said: where standard output goes.
      recipe: a file that was made for it, and goes away at its end.
      folder: of a new run; None: it goes on with an earlier one.
      made: what was made for a new run, and goes away with one that did not begin.
    """

    def __init__(
        self,
        words: Sequence[str],
        said: Said,
        recipe: Path | None = None,
        folder: Path | None = None,
        made: Sequence[Path] = (),
    ) -> None:
        self._recipe, self._folder, self._made = recipe, folder, made
        self._lock, self._settled = threading.Lock(), False
        self._cancelled = False
        self._complaints = Said()
        self._child = subprocess.Popen(
            command(words),
            stdin=subprocess.PIPE,
            stdout=said.fileno(),
            stderr=self._complaints.fileno(),
            start_new_session=True,  # a terminal's Ctrl-C is for this program, which cancels
        )
        self._failure: EdgeTrainError | None = None
        _going.add(self)

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._child.poll() is not None

    def cancel(self) -> None:
        """Send it one polite signal, the first time."""
        with self._lock:
            if self._cancelled or self.is_over:
                return
            self._cancelled = True
        self._child.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end.

        Raises:
          EdgeTrainError: in the words of the command.
        """
        self._child.wait()
        with self._lock:
            if not self._settled:
                self._settle()
                self._settled = True
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _settle(self) -> None:
        """Find out how it ended, and take away what a run that did not begin left."""
        _going.discard(self)
        assert self._child.stdin is not None
        self._child.stdin.close()
        text = self._complaints.text()
        status = self._child.returncode
        if self._recipe is not None:
            self._recipe.unlink(missing_ok=True)
        wanted = status in (0, INTERRUPTED) or (self._cancelled and status < 0)
        if not wanted:
            self._failure = failure_of(status, text)
        if self._folder is not None and not RunFolder(self._folder).recipe.exists():
            for path in self._made:
                remove(path)


def failure_of(status: int, text: str) -> EdgeTrainError:
    """Return the error that a command ended with.

    Args:
      text: what it wrote to standard error.
    """
    lines = text.strip().splitlines()
    said = [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
    if not said:
        last = "\n".join(lines[-_SHOWN_LINES:])
        said = [f"the process of the run ended with status {status}. {last}".strip()]
    sentence = "\n".join(said)
    if status != STOPPED:
        return EdgeTrainError(sentence)
    if sentence.startswith("out of memory"):
        return OutOfMemory(sentence)
    return TrainingStopped(sentence)


_going: set[Process] = set()  # held here, so that a `Run` that nobody keeps goes on


@atexit.register
def _stop_all() -> None:
    """Stop the runs that go on when this program ends, with everything saved."""
    for process in list(_going):
        if not process.is_over:
            process.cancel()
            with suppress(OSError):
                print(
                    f"{_PREFIX}the program ends, so its run is stopped with everything saved; "
                    "`wait()` waits for a run.",
                    file=sys.stderr,
                )
        with suppress(EdgeTrainError):
            process.wait()
