"""Event files for TensorBoard: scalars of every step, and pictures as they are drawn."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from edge_train.errors import InputError
from edge_train.protocols import StepRecord
from edge_train.records.folder import RunFolder
from edge_train.run.observer import Best, Observer

FOLDER = "tensorboard"  # in the run folder
_MOST_PICTURE_BYTES = 1 << 23
_PREVIEW = "step-"  # then the number of steps and the prompt's


class Board:
    """Passes everything on to another observer, and writes what can be drawn.

    A point stands at the number of steps that were taken. A run that goes on writes another file,
    whose first event has readers drop points of steps that are taken again.

    Raises:
      InputError: the package that writes such files is not installed.
    """

    def __init__(self, inner: Observer) -> None:
        self._inner, self._format = inner, _event_format()
        self._file: Any = None  # open; None before there is a folder, and once it cannot be written
        self._samples = Path()
        self._rate: Callable[[int], float | None] = lambda step: None
        self._seen: dict[str, int] = {}  # pictures that were written, with their times
        self._looked = -1  # when their folder had changed at the last look
        self._steps = 0

    def placed(self, folder: Path, first_step: int, rate: Callable[[int], float | None]) -> None:
        """Begin a file in the folder of a run.

        Args:
          rate: the learning rate of a step, None where it has none.
        """
        self._samples, self._rate, self._steps = RunFolder(folder).samples, rate, first_step
        place = folder / FOLDER
        with self._written():
            known = place.is_dir() and any(place.iterdir())
            place.mkdir(exist_ok=True)
            # a process that follows in the same second has its own file: names end with the pid
            name = f"events.out.tfevents.{int(time.time())}.{os.uname().nodename}.{os.getpid()}"
            self._file = self._format.open(str(place / name))
            self._put(file_version="brain.Event:2")
            if first_step:
                begin = self._format.session(status=self._format.session.START)
                self._put(step=first_step + 1, session_log=begin)
            if known:  # an earlier process wrote those that are there
                self._seen = dict(_pictures(self._samples))
            self._draw()

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Pass it on."""
        self._inner.started(first_step, steps, cap_bytes)

    def stepped(self, record: StepRecord, best: Best | None) -> None:
        """Write the scalars of a step, and the pictures that are new."""
        self._steps = record.step + 1
        values = {
            "train/loss": record.loss,
            "eval/loss": record.eval,
            "train/gradient_norm": record.gradient_norm,
            "train/learning_rate": self._rate(record.step),
            "memory/held_bytes": record.resident_bytes or None,
        }
        value = self._format.summary.Value
        shown = [value(tag=k, simple_value=v) for k, v in values.items() if v is not None]
        with self._written():
            self._put(step=self._steps, summary=self._format.summary(value=shown))
            self._draw()
        self._inner.stepped(record, best)

    def said(self, text: str) -> None:
        """Pass it on."""
        self._inner.said(text)

    def ended(self, status: str) -> None:
        """Write the last pictures, and close the file."""
        with self._written():
            self._draw()
            if self._file is not None:
                self._file.close()
        self._file = None
        self._inner.ended(status)

    def _written(self) -> "_Suppressed":
        return _Suppressed(self)

    def give_up(self, error: OSError) -> None:
        """Go on without the files: a full disk stops no run before its journal is concerned."""
        self._file = None
        self._inner.said(f"{FOLDER}: cannot be written ({error.strerror}); the run goes on without")

    def _put(self, **event: Any) -> None:
        if self._file is not None:
            made = self._format.event(wall_time=time.time(), **event)
            self._file.write(made.SerializeToString())
            self._file.flush()

    def _draw(self) -> None:
        """Write pictures that came since the last look."""
        with suppress(FileNotFoundError):
            changed = self._samples.stat().st_mtime_ns
            if changed == self._looked:
                return
            self._looked = changed
        for name, stamp in sorted(_pictures(self._samples)):
            if self._seen.get(name) == stamp:
                continue
            self._seen[name] = stamp
            found = _image(self._samples / name)
            if found is not None:
                step, tag = _place(name, self._steps)
                image = self._format.summary.Image(colorspace=3, **found)
                value = self._format.summary.Value(tag=f"samples/{tag}", image=image)
                self._put(step=step, summary=self._format.summary(value=[value]))


class _Suppressed:
    """A block in which a file that cannot be written ends the writing, not the run."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, OSError):
            self._board.give_up(error)
            return True
        return False


def _pictures(samples: Path) -> list[tuple[str, int]]:
    """Return names and times of the pictures in a folder; none if it is not there."""
    with suppress(OSError), os.scandir(samples) as found:
        return [
            (one.name, one.stat().st_mtime_ns)
            for one in found
            if one.name.endswith(".png") and not one.name.startswith(".")
        ]
    return []


def _image(path: Path) -> dict[str, Any] | None:
    """Return size and bytes of a picture; None for one that cannot be read or is huge."""
    try:
        if path.stat().st_size > _MOST_PICTURE_BYTES:
            return None
        with Image.open(path) as image:
            width, height = image.size
        return {"width": width, "height": height, "encoded_image_string": path.read_bytes()}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _place(name: str, steps: int) -> tuple[int, str]:
    """Return the step at which a picture stands, and its series.

    >>> _place("step-200-01.png", 208), _place("after-01.png", 300)
    ((200, 'preview-01'), (300, 'after-01'))
    """
    stem = name.removesuffix(".png")
    step, _, prompt = stem.removeprefix(_PREVIEW).partition("-")
    if stem.startswith(_PREVIEW) and step.isascii() and step.isdigit():
        return int(step), f"preview-{prompt}"
    return steps, stem


def _event_format() -> Any:
    """Return what writes an event: the messages, and the file of records.

    tensorboardX imports torch where that is installed, for models as graphs. That would hold 200 MB
    of a run on another engine, so it finds none here unless the run has it anyway.

    Raises:
      InputError: it is not installed.
    """
    modules: dict[str, Any] = sys.modules
    hidden = "torch" not in modules
    if hidden:
        modules["torch"] = None
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ImportError as error:
        raise InputError(
            f"--report-to tensorboard needs {error.name}, which is not installed; "
            "`pip install 'edge-train[tensorboard]'`."
        ) from error
    finally:
        if hidden:
            del modules["torch"]
    return SimpleNamespace(event=Event, session=SessionLog, summary=Summary, open=RecordWriter)
