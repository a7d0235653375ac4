"""Commands that run beside a test: waited for by what they write, and ended with the test."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

from places import SUPPORT

from edge_train.records import journal

# Only an alarm for a command that hangs: so long without one more byte in its journal.
STALLED_SECONDS = 1800


def records_of(out):
    """Return the intact records of a run's journal; none before there is one."""
    return journal.read(out / "journal.jsonl")[0] if (out / "journal.jsonl").exists() else []


def steps_in(out):
    """Return how many steps a run's journal holds."""
    return sum(record["kind"] == "step" for record in records_of(out))


class Command:
    """A running `edge-train` command; leaving its block ends it and whatever it started.

    Args:
      words: its arguments.
      out: the run folder whose journal shows its progress.
      script: what Python runs instead of `-m edge_train`.
      environment: changes to the environment.
    """

    def __init__(self, *words, out, script=("-m", "edge_train"), **environment):
        self.folder = out
        self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # pipes could fill up
        self.process = subprocess.Popen(
            [sys.executable, *script, *map(str, words)],
            env={**os.environ, **environment},
            stdout=self._files[0],
            stderr=self._files[1],
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for file in self._files:
            file.close()

    def _until(self, reached):
        """Wait until something is reached or the command has ended; fail when it hangs."""
        size, since = -1, time.monotonic()
        while self.process.poll() is None and not reached():
            book = self.folder / "journal.jsonl"
            now = book.stat().st_size if book.exists() else 0
            if now != size:
                size, since = now, time.monotonic()
            assert time.monotonic() - since < STALLED_SECONDS, "the command makes no progress"
            time.sleep(0.01)

    def wait_for_steps(self, count):
        """Return once the journal holds this many steps; fail if the command ends before."""
        self._until(lambda: steps_in(self.folder) >= count)
        if self.process.poll() is not None:
            self.wait()
            raise AssertionError(f"it ended with {self.process.returncode}: {self.err}")

    def wait(self):
        """Return the exit status; `out` and `err` are then what it printed."""
        self._until(lambda: False)
        self.out, self.err = (self._read(file) for file in self._files)
        return self.process.returncode

    def _read(self, file):
        file.seek(0)
        return file.read().decode()

    def send(self, number):
        """Send a signal to the command alone, not to what it started."""
        self.process.send_signal(number)


def run_to_the_end(*words, out):
    """Run a command on one thread; fail unless it succeeds."""
    with Command(*words, out=out, OMP_NUM_THREADS="1") as command:
        assert command.wait() == 0, command.err


def kill(words, out, records, seconds):
    """Start or resume a run, which the kernel ends at an instant (see `dying.py`).

    Returns:
      Whether it was ended on its way; if not, the run is over.
    """
    if (out / "recipe.toml").exists():
        words = ("run", "--resume", out)
    script = (str(SUPPORT / "dying.py"), str(records), str(seconds))
    with Command(*words, out=out, script=script, OMP_NUM_THREADS="1") as command:
        status = command.wait()
        assert status in (0, -signal.SIGPROF), command.err
        return status != 0
