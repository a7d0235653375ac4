"""The runs of a folder, as the page asks for them: a list, one run, its pictures; stop and resume.

A run is found by looking it up among the names that are there, never by making a path of what a
browser sent.
"""

import os
import re
import subprocess
from contextlib import suppress
from typing import Any

from edge_train.memory.fresh import command
from edge_train.watch.holder import HAS_PROC, ask_to_stop, holder, is_command
from edge_train.watch.http import Refused
from edge_train.watch.inside import names_in, open_file
from edge_train.watch.live import Live

MOST_RUNS = 60  # in the list, the newest
_MOST_LOOKS = 8  # at journals that have more to read than one look takes, in one answer
_MOST_PICTURES = 12
_PICTURE = re.compile(r"[\w.-]{1,100}\.png", re.ASCII)
_JOURNAL, _RECIPE, _REPORT, _LOG = "journal.jsonl", "recipe.toml", "report.html", "resumed.log"
_GOES_ON = ("running", "interrupted", "stopped")  # last words of a journal that can be resumed


class Runs:
    """The runs in `root`.

    Args:
      root: a folder of runs, or one run.
      one: it is of one run, even if that is not there yet.
      beside: this process watches beside a run and ends with it, so it starts no other.
    """

    def __init__(self, root: str, *, one: bool = False, beside: bool = False) -> None:
        self.root, self._one, self._beside = root, one, beside
        self._live: dict[str, Live] = {}
        self._asked: dict[str, int] = {}  # run -> pid that was asked to stop
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return where a run lies below the root.

        Raises:
          Refused: there is no such run.
        """
        if self._is_one():
            if name == self._own_name():
                return ()
        elif name in names_in(self.root) and self._has_run(name):
            return (name,)
        raise Refused(404, "there is no such run here.")

    def _own_name(self) -> str:
        return os.path.basename(self.root.rstrip("/")) or "run"

    def _is_one(self) -> bool:
        return self._one or self._has_run()

    def _has_run(self, *parts: str) -> bool:
        for name in (_JOURNAL, _RECIPE):
            with suppress(OSError):
                file, _ = open_file(self.root, *parts, name)
                os.close(file)
                return True
        return False

    def _newest(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return names and places of the runs, the newest first."""
        if self._is_one():
            return [(self._own_name(), ())]
        found: list[tuple[float, str]] = []
        for name in names_in(self.root):
            for file_name in (_JOURNAL, _RECIPE):
                with suppress(OSError):
                    file, there = open_file(self.root, name, file_name)
                    os.close(file)
                    found.append((there.st_mtime, name))
                    break
        found.sort(reverse=True)
        newest = [name for _, name in found if is_text(name)][:MOST_RUNS]
        for name in self._live.keys() - set(newest):  # it vanished, or is too old
            del self._live[name]
        return [(name, (name,)) for name in newest]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run."""
        rows, looks = [], _MOST_LOOKS
        for name, parts in self._newest():
            live = self._live.setdefault(name, Live())
            if looks > 0 or not live.behind:
                looks -= self._look(live, parts)
            rows.append(self._row(name, parts, live))
        return rows

    def _look(self, live: Live, parts: tuple[str, ...]) -> bool:
        """Read on in a journal; return whether that has to go on."""
        with suppress(OSError):
            live.look(self.root, *parts, _JOURNAL)
        return live.behind

    def _row(self, name: str, parts: tuple[str, ...], live: Live) -> dict[str, Any]:
        pid = holder(self.root, *parts)
        status = live.status
        if pid is not None:
            asked = self._asked.get(name) == pid
            status = "stopping" if asked else "running" if live.steps else "starting"
        elif status == "running" and HAS_PROC:
            status = "broken off"
        row = {"name": name, "status": status or "not begun", **live.summary()}
        row["stops"] = pid is not None and status != "stopping" and is_command(pid)
        goes_on = (live.status in _GOES_ON) and pid is None and HAS_PROC
        # what a run imports is named by whoever resumes it, or was lent by a program
        goes_on = goes_on and live.facts.get("task") != "module"
        row["resumes"] = goes_on and not self._beside and not self._is_starting(name)
        row["said"] = self._said(name, parts)
        return row

    def one(self, name: str) -> dict[str, Any]:
        """Return what the page of a run shows.

        Raises:
          Refused: there is no such run.
        """
        parts = self._parts(name)
        live = self._live.setdefault(name, Live())
        self._look(live, parts)
        pictures = [text for text in names_in(self.root, *parts, "samples") if is_picture(text)]
        more: dict[str, Any] = {"pictures": sorted(pictures, key=_place)[-_MOST_PICTURES:]}
        more["report"] = _REPORT in names_in(self.root, *parts)
        return {**self._row(name, parts, live), **live.curves(), **more}

    def open(self, name: str, *place: str) -> tuple[int, int]:
        """Return an open file of a run, and its size.

        Raises:
          Refused: there is no such run or file.
        """
        parts = self._parts(name)
        try:
            file, found = open_file(self.root, *parts, *place)
        except OSError:
            raise Refused(404, "there is no such file here.") from None
        return file, found.st_size

    def stop(self, name: str) -> None:
        """Ask a run to save and stop after its step in progress, once.

        Raises:
          Refused: nothing can be stopped.
        """
        parts = self._parts(name)
        pid = holder(self.root, *parts)
        if pid is not None and self._asked.get(name) == pid:
            return  # a second Ctrl-C would end it at once
        try:
            asked = ask_to_stop(self.root, *parts)
        except OSError as error:
            raise Refused(409, f"it cannot be stopped from here ({error.strerror}).") from error
        if asked is None:
            raise Refused(409, "no `edge-train run` of this machine is training in it.")
        self._asked[name] = asked

    def resume(self, name: str) -> None:
        """Start `edge-train run --resume` as a process of its own; this one may end before it.

        Raises:
          Refused: it is being trained, or cannot be started here.
        """
        parts = self._parts(name)
        if self._beside:
            raise Refused(409, "beside a run nothing else is started; use `edge-train watch`.")
        if holder(self.root, *parts) is not None or self._is_starting(name):
            raise Refused(409, "it is running.")
        folder = os.path.join(self.root, *parts)
        try:
            log = os.open(
                os.path.join(folder, _LOG),
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK,
                0o644,
            )
        except OSError as error:
            raise Refused(409, f"it cannot be written to ({error.strerror}).") from error
        try:
            self._started[name] = subprocess.Popen(
                command(["run", "--resume", folder]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise Refused(409, f"it could not be started ({error.strerror}).") from error
        finally:
            os.close(log)

    def _is_starting(self, name: str) -> bool:
        """Return whether a process that was started here is there; a dead one is taken away."""
        return name in self._started and self._started[name].poll() is None

    def _said(self, name: str, parts: tuple[str, ...]) -> str:
        """Return the last line of a run that was started here and failed."""
        if name not in self._started or self._started[name].poll() in (None, 0, 130):
            return ""
        with suppress(OSError):
            file, found = open_file(self.root, *parts, _LOG)
            try:
                text = os.pread(file, 2000, max(found.st_size - 2000, 0))
            finally:
                os.close(file)
            return text.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return ""


def is_text(name: str) -> bool:
    """Return whether a name can be put into an address."""
    try:
        name.encode()
    except UnicodeEncodeError:  # of bytes that are no UTF-8
        return False
    return True


def is_picture(name: str) -> bool:
    """Return whether a name is one that a picture of a run has.

    >>> is_picture("after-01.png"), is_picture("../x.png"), is_picture(".hidden")
    (True, False, False)
    """
    return _PICTURE.fullmatch(name) is not None and not name.startswith(".")


def _place(name: str) -> tuple[int, list[int], str]:
    """Return where a picture stands: photos, before, those of steps, after."""
    leads = ("photo", "before", "step")
    first = next((n for n, lead in enumerate(leads) if name.startswith(lead)), len(leads))
    return first, [int(digits) for digits in re.findall(r"\d+", name)], name
