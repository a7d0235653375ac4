"""Teach a device to tell your things apart, with its camera: `camera.py PICTURES --model BACKBONE`.

Point the camera at a thing, type its name and press Enter: the picture is kept in PICTURES/NAME.
After a few, `edge-train run` teaches a classifier on what the frozen backbone sees; it goes on from
what it learned with every few pictures more. Enter alone asks what the camera sees. Whatever is
learned is in RUNS, which `edge-train watch RUNS` shows.

    python camera.py pictures --model lite0.onnx
    python camera.py pictures --model lite0.onnx --label cup --count 10
    python camera.py pictures --model lite0.onnx --camera FOLDER

A folder as a camera: pictures in FOLDER/NAME are of NAME; those in FOLDER itself are asked about.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as WaitedTooLong  # of picamera2's jobs
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

SIZE = (640, 480)  # pixels of a picture; a backbone looks at 224 of the middle
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
WAIT_SECONDS = 10  # for a picture: a ribbon that came loose gives none
_GIVEN = "pictures.json"  # beside the runs: the pictures that each of them was given
KEPT_RUNS = 2  # the classifier that answers, and the one before it
Shot = tuple[str | None, Image.Image]  # a name, or None where it is asked for


class Stopped(Exception):
    """Something that a person must see to; what was taken and learned is on the disk."""


class Camera(Protocol):
    """Whatever takes pictures."""

    def take(self) -> Image.Image:
        """Return a picture.

        Raises:
          OSError, RuntimeError: the camera is gone.
        """
        ...


class PiCamera:
    """A camera on the ribbon of a Raspberry Pi, by picamera2."""

    def __init__(self) -> None:
        from picamera2 import Picamera2  # of the system: apt install python3-picamera2

        self._camera = Picamera2()
        self._camera.configure(self._camera.create_still_configuration(main={"size": SIZE}))
        self._camera.start()

    def take(self) -> Image.Image:
        # newer versions take seconds to wait, and older ones wait for as long as it takes
        return self._camera.capture_image("main", wait=WAIT_SECONDS).convert("RGB")


class VideoCamera:
    """A camera on USB (V4L2), or a GStreamer pipeline, by OpenCV."""

    def __init__(self, source: str) -> None:
        import cv2  # pip install opencv-python-headless

        if " ! " in source:
            self._camera = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
        else:
            self._camera = cv2.VideoCapture(int(source), cv2.CAP_V4L2)
        if not self._camera.isOpened():
            raise OSError("it does not open")

    def take(self) -> Image.Image:
        for _ in range(5):  # older pictures wait in a queue
            there, picture = self._camera.read()
        if not there:
            raise OSError("it gives no picture")
        return Image.fromarray(picture[:, :, ::-1])  # blue comes first there


def open_camera(name: str) -> Camera:
    """Return the camera of a name; `auto`: the ribbon's where picamera2 is, else the first on USB.

    Raises:
      Stopped: there is none.
    """
    if name not in ("auto", "pi") and not name.isdigit() and " ! " not in name:
        raise Stopped(
            f"there is no folder {name!r}, and it is no number or GStreamer pipeline; look at "
            "--camera"
        )
    try:
        if name in ("auto", "pi"):
            try:
                return PiCamera()
            except ImportError:
                if name == "pi":
                    raise
        return VideoCamera("0" if name == "auto" else name)
    except ImportError as error:
        raise Stopped(
            f"{error.name} is not installed, which reads camera {name!r}; on a Raspberry Pi: apt "
            "install python3-picamera2, for USB: pip install opencv-python-headless, or name a "
            "folder of pictures: --camera FOLDER"
        ) from None
    except (OSError, RuntimeError, IndexError) as error:
        raise Stopped(
            f"camera {name!r}: {error}; plug it in, or name a number, a GStreamer pipeline or a "
            "folder with --camera"
        ) from None


def shots(options: argparse.Namespace, camera: Camera | None) -> Iterator[Shot]:
    """Yield pictures with their names, as they are taken.

    Raises:
      Stopped: the camera is gone.
    """
    folder = Path(options.camera)
    if camera is None and folder.is_dir():
        yield from _of_folder(folder)
        return
    camera = camera or open_camera(options.camera)
    try:
        if options.label is not None:
            for _ in range(options.count):
                yield options.label, camera.take()
                time.sleep(options.pause)
            return
        print("a name and Enter: learn it; Enter alone: what is it?; Ctrl-D: end", flush=True)
        for line in sys.stdin:
            yield line.strip() or None, camera.take()
    except (OSError, RuntimeError, WaitedTooLong) as error:
        raise Stopped(
            f"the camera is gone ({str(error) or 'no picture came'}); plug it in"
        ) from None


def _of_folder(folder: Path) -> Iterator[Shot]:
    files = [file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS]
    if not files:
        print(f"there is no picture in {folder} ({', '.join(sorted(ENDINGS))})", flush=True)
    for file in sorted(files, key=lambda file: (file.parent == folder, file)):
        label = None if file.parent == folder else file.parent.name
        try:
            picture = Image.open(file).convert("RGB")
        except OSError as error:
            if not folder.is_dir():
                raise Stopped(f"the folder {folder} is gone; bring it back") from None
            print(f"{file}: left aside, {error}", flush=True)
            continue
        picture.thumbnail(SIZE)
        yield label, picture


def is_name(label: str) -> bool:
    """Return whether a folder of pictures can have this name; `train` and `test` mean parts."""
    return not label.startswith(".") and label not in ("train", "test") and "/" not in label


def keep(picture: Image.Image, folder: Path, *, once: bool = False) -> bool:
    """Write a picture whole or not at all, under the next number; a power cut takes none away.

    With `once` a picture that lies there already is not written; return whether it was.

    Raises:
      Stopped: the card is full, or nothing may be written there.
    """
    content = io.BytesIO()  # Pillow itself takes no notice of half a write to a full card
    picture.save(content, "JPEG", quality=92)
    size = content.tell()
    alike = (file for file in folder.glob("*.jpg") if once and file.stat().st_size == size)
    if any(file.read_bytes() == content.getvalue() for file in alike):
        return False
    part = folder.parent / ".part.jpg"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = max((int(f.stem) for f in folder.glob("*.jpg") if f.stem.isdigit()), default=0)
        with part.open("wb") as file:
            file.write(content.getvalue())
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / f"{number + 1:04d}.jpg")
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise Stopped(f"{folder}: {error.strerror or error}; make room there") from None
    return True


class Classifier:
    """What was learned so far: runs of `edge-train` in a folder, each from the one before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.runs = Path(options.runs)

    def folders(self) -> list[Path]:
        """Return the runs, the oldest first."""
        return sorted(self.runs.glob("[0-9]*"), key=lambda run: int(run.name))

    def ready(self) -> Path | None:
        """Return the last run that is done."""
        done = [run for run in self.folders() if _status(run) == "done"]
        return done[-1] if done else None

    def go_on(self) -> None:
        """Finish what a power cut or Ctrl-C left half done."""
        for run in self.folders()[-1:]:
            if _status(run) != "done":
                if (run / "journal.jsonl").exists():
                    self._edge_train("run", "--resume", run)
                else:  # not one step of it was taken
                    shutil.rmtree(run)

    def learn(self, least: int) -> None:
        """Train on all pictures of two things or more, from what is known, if `least` are new."""
        pictures, before, given = self._pictures(), self.ready(), self._given()
        names = sorted({Path(file).parent.name for file in pictures})
        known = given.get(before.name, []) if before else []
        if len(names) < 2 or len({*pictures} - {*known}) < least:
            return
        folders = self.folders()
        out = self.runs / f"{int(folders[-1].name) + 1 if folders else 1:04d}"
        with suppress(OSError):  # then it learns them again
            self.runs.mkdir(parents=True, exist_ok=True)
            (self.runs / _GIVEN).write_text(json.dumps({**given, out.name: pictures}))
        words = [self.options.pictures, "--task", "images", "--model", self.options.model]
        words += ["--mem", self.options.mem, "--steps", "100", "--out", out]
        self._edge_train("run", *words, *(["--from", before] if before else []))
        print(f"learned {len(names)} things: {', '.join(names)}", flush=True)
        for run in self.folders()[:-KEPT_RUNS]:
            shutil.rmtree(run)

    def _pictures(self) -> list[str]:
        folder = self.options.pictures
        return sorted(file.relative_to(folder).as_posix() for file in folder.glob("*/*.jpg"))

    def _given(self) -> dict[str, list[str]]:
        """Return the pictures that each run was given, by the name of a run that is still there."""
        try:
            found = dict(json.loads((self.runs / _GIVEN).read_text()))
        except (OSError, ValueError, TypeError):
            return {}
        return {name: files for name, files in found.items() if (self.runs / name).is_dir()}

    def ask(self, picture: Image.Image) -> None:
        """Say what a picture shows."""
        run = self.ready()
        if run is None:
            print("nothing is learned yet: show two things first", flush=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            keep(picture, Path(folder) / "asked")
            self._edge_train("infer", run, Path(folder) / "asked" / "0001.jpg")

    def _edge_train(self, *words: Any) -> None:
        command = [sys.executable, "-m", "edge_train", *map(str, words)]
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            raise Stopped(f"edge-train {words[0]} stopped (status {status}), see above: mend that")


def _status(run: Path) -> str:
    try:
        return str(json.loads((run / "report.json").read_text())["status"])
    except (OSError, ValueError, KeyError):
        return "not done"


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="folder that pictures are kept in, by name")
    parser.add_argument("--model", required=True, help="the backbone: an .onnx file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of what is learned")
    parser.add_argument(
        "--camera", default="auto", help="auto, pi, a number, a GStreamer pipeline or a folder"
    )
    parser.add_argument("--label", help="the name of all pictures that are taken now")
    parser.add_argument("--count", type=int, default=10, help="how many, with --label")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between them")
    parser.add_argument("--every", type=int, default=5, help="learn after so many new pictures")
    parser.add_argument("--mem", default="200MB", help="most that learning may hold")
    options = parser.parse_args(words)
    if not Path(options.model).is_file():
        parser.error(f"there is no file {options.model}; docs/tasks/images.md says how to make it")
    return options


def teach(options: argparse.Namespace, camera: Camera | None) -> None:
    """Take pictures, keep those that have a name, and learn from them.

    Raises:
      Stopped: with everything saved.
    """
    classifier, shelf = Classifier(options), Path(options.camera).is_dir() and camera is None
    classifier.go_on()
    for label, picture in shots(options, camera):
        if label is None:
            classifier.learn(least=1)
            classifier.ask(picture)
        elif not is_name(label):
            print(f"{label!r} cannot be a name; choose another", flush=True)
        elif keep(picture, options.pictures / label, once=shelf):
            print(f"kept a picture of {label}", flush=True)
            classifier.learn(least=options.every)
    classifier.learn(least=1)


def main(words: list[str] | None = None, camera: Camera | None = None) -> int:
    """Return the exit status: 0, 3 where it stopped, 130 after Ctrl-C; the same command goes on.

    The parser ends with 2, before anything is begun.
    """
    options = arguments(words)
    try:
        teach(options, camera)
    except Stopped as stopped:
        print(
            f"camera.py: {stopped}, then start this command again: pictures are in "
            f"{options.pictures}, what was learned in {options.runs}.",
            file=sys.stderr,
        )
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
