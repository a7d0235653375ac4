"""The camera demo with a folder as camera: from the first picture to a classifier of three things.

    edge-train bench camera --data PHOTOS --model lite0.onnx [--python DEVICE_PYTHON]

PHOTOS has a folder of photos for each thing. The program is demos/raspberry_pi/camera.py, so this
runs in a checkout.
"""

import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edge_train.bench import table
from edge_train.errors import InputError, TrainingStopped
from edge_train.formats.picture_folders import is_picture
from edge_train.memory.measure import measure
from edge_train.units import format_bytes

_DEMO = Path(__file__).parents[2] / "demos" / "raspberry_pi" / "camera.py"
_FEW = 3
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class _Shown:
    """What a run of the program came to.

    Attributes:
      things: that were shown, and `pictures` of them.
      learned: how often it trained.
      right: pictures that were asked about at the end and named right, of `asked`.
      seconds: processor seconds of all its processes.
      peak_bytes: the most that they held at once.
    """

    things: int
    pictures: int
    learned: int
    right: int
    asked: int
    seconds: float
    peak_bytes: int


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    python: str = sys.executable,
) -> str:
    """Return a table: three things, then all that there are.

    Args:
      seeds: ignored: pictures come in one order.
      data: a folder of photos for each thing.
      model: the backbone, an .onnx file.
      python: of the device environment.

    Raises:
      InputError: photos, backbone or the program are not there.
    """
    del seeds
    if data is None or model is None:
        raise InputError(
            "bench camera needs --data PHOTOS, a folder of photos for each thing, and --model with "
            "a backbone; docs/tasks/images.md says where to get one."
        )
    if not _DEMO.is_file():
        raise InputError(f"{_DEMO} is not here; run this bench in a checkout of the repository.")
    folders = sorted(folder for folder in data.iterdir() if folder.is_dir())
    if len(folders) < _FEW:
        raise InputError(f"{data}: {len(folders)} folders of photos, at least {_FEW} are needed.")
    found = [_show(out / "camera", some, model, python) for some in (folders[:_FEW], folders)]
    head = ("things", "photos", "trained", "asked at the end", "processor seconds", "held at most")
    rows = [
        (
            str(one.things),
            str(one.pictures),
            f"{one.learned} times",
            f"{one.right} of {one.asked} right",
            f"{one.seconds:.1f}",
            format_bytes(one.peak_bytes),
        )
        for one in found
    ]
    return table(head, rows)


def _show(out: Path, things: list[Path], model: Path, python: str) -> _Shown:
    """Show photos to the program, and at the end ask about one of each thing that it never saw."""
    shutil.rmtree(out, ignore_errors=True)
    camera, pictures, asked = out / "camera", 0, 0
    for thing in things:
        photos = sorted(file for file in thing.iterdir() if is_picture(file))
        (camera / thing.name).mkdir(parents=True)
        for number, photo in enumerate(photos):
            last = number == len(photos) - 1
            name = f"{thing.name}-{photo.name}" if last else f"{thing.name}/{photo.name}"
            shutil.copy(photo, camera / name)
            pictures, asked = pictures + (not last), asked + last
    words = [str(out / "pictures"), "--model", str(model.absolute()), "--camera", str(camera)]
    command = [python, str(_DEMO), *words, "--runs", str(out / "runs")]
    said, seconds, peak_bytes = _watched(command)
    answers = said.splitlines()[-asked:]
    named = sorted(thing.name for thing in things)  # in the order of the pictures
    right = sum(f": {name} (" in line for name, line in zip(named, answers, strict=True))
    learned = sum(line.startswith("learned ") for line in said.splitlines())
    return _Shown(len(things), pictures, learned, right, asked, seconds, peak_bytes)


def _watched(command: list[str]) -> tuple[str, float, int]:
    """Return what a command said, its processor seconds, and what it and its children held."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    peaks = [0]

    def look() -> None:
        while process.poll() is None:
            peaks[0] = max(peaks[0], measure(process.pid).resident_bytes)
            time.sleep(_PAUSE_SECONDS)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    said, complaint = process.communicate()
    thread.join()
    if process.returncode != 0:
        raise TrainingStopped(f"{' '.join(command)}: {complaint.strip()[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return said, seconds, peaks[0]
