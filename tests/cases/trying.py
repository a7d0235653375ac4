"""What a case is tried with: the real command in a process of its own, and what is expected."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 600  # an alarm for a command that hangs


class Unexpected(Exception):
    """A case does not have the behaviour that a user expects."""


def expect(true: object, sentence: str) -> None:
    """Raise `Unexpected` with the sentence unless `true`."""
    if not true:
        raise Unexpected(sentence)


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit status, all that it said, and its run folder."""

    status: int
    said: str
    folder: Path

    @property
    def report(self) -> dict:
        """Return report.json of the run folder."""
        return json.loads((self.folder / "report.json").read_text())

    @property
    def facts(self) -> dict:
        """Return the first record of the journal."""
        with (self.folder / "journal.jsonl").open(encoding="utf-8") as lines:
            return json.loads(next(lines))

    def trains(self) -> "Done":
        """Expect status 0."""
        expect(self.status == 0, f"status {self.status} instead of 0: {self.last}")
        return self

    def refused(self) -> "Done":
        """Expect status 2, one sentence without a traceback, and no run folder."""
        expect(self.status == 2, f"status {self.status} instead of 2: {self.last}")
        expect("Traceback" not in self.said, "a traceback")
        expect(not self.folder.exists(), "a run folder although nothing was started")
        return self

    def says(self, *words: str) -> "Done":
        """Expect every word, in any case."""
        for word in words:
            expect(word.lower() in self.said.lower(), f"{word!r} is not said")
        return self

    def page_says(self, *words: str) -> "Done":
        """Expect every word in the report that people read."""
        page = (self.folder / "report.html").read_text().lower()
        for word in words:
            expect(word.lower() in page, f"{word!r} is not in report.html")
        return self

    @property
    def last(self) -> str:
        """Return the last line that was said."""
        lines = self.said.strip().splitlines()
        return lines[-1] if lines else "nothing was said"


@dataclass(frozen=True)
class Place:
    """A folder with every input, where commands are started; run folders go to `out`."""

    inputs: Path
    out: Path

    def edge_train(self, *words: object, where: Path | None = None, **environment: str) -> Done:
        """Run `edge-train` with these words; a run writes to a folder of its own.

        `where` is the current folder instead of that of the inputs.
        """
        folder = self.out / f"run{len(list(self.out.iterdir()))}"
        folder.with_suffix(".begun").touch()
        named = ["--out", folder] if words[0] == "run" and "--resume" not in words else []
        done = self.python("-m", "edge_train", *words, *named, where=where, **environment)
        return Done(done.returncode, done.stdout, folder)

    def python(
        self, *words: object, where: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a Python of this environment; both streams in one text."""
        return subprocess.run(
            [sys.executable, "-P", *map(str, words)],
            cwd=where or self.inputs,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )

    def started(self, folder: Path, *words: object) -> "subprocess.Popen[str]":
        """Start a run in the folder and return once its journal holds a step."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge_train", *map(str, words), "--out", str(folder)],
            cwd=self.inputs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        while process.poll() is None and steps_in(folder) == 0:
            pass
        return process


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a started run and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def steps_in(folder: Path) -> int:
    """Return how many steps the journal of a run holds."""
    journal = folder / "journal.jsonl"
    return journal.read_bytes().count(b'"kind":"step"') if journal.exists() else 0


@dataclass(frozen=True)
class Case:
    """A report of a user: its number, what was reported, and the function that tries it."""

    number: str
    title: str
    attempt: Callable[[Place], None]
    only_root: bool = False


CASES: list[Case] = []


def case(
    number: str, title: str, *, only_root: bool = False
) -> Callable[[Callable[[Place], None]], Callable[[Place], None]]:
    """Register the function under it as a case."""

    def register(attempt: Callable[[Place], None]) -> Callable[[Place], None]:
        CASES.append(Case(number, title, attempt, only_root))
        return attempt

    return register
