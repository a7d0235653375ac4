"""`run` and `resume`: a run in a process of its own, walled, and the `Run` that follows it.

The process is started by `exec`, never by a bare `fork`, so any thread may call this. What it says
goes to a file without a name, which no thread has to drain: nobody who forgets to listen can make
a run wait, and no thread of ours can die.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from edge_train.api.given import Given, write
from edge_train.api.process import Process
from edge_train.api.said import Said
from edge_train.errors import EdgeTrainError, InputError, RunFolderError, TrainingStopped
from edge_train.recipe import Recipe, to_toml, with_absolute_paths
from edge_train.records.folder import RunFolder
from edge_train.units import shown

_PAUSE_SECONDS = 0.05  # between two looks for the next event


class Run:
    """A run in progress, or one that is over; made by `run`, `resume` and `fit`.

    Attributes:
      folder: of the run; it is there once the run has begun.
    """

    def __init__(self, folder: Path, said: Said | None, process: Process | None) -> None:
        self.folder = folder
        self._said, self._process = said, process

    def __repr__(self) -> str:
        return f"<Run {str(self.folder)!r}, {'over' if self.is_over else 'going on'}>"

    @property
    def is_over(self) -> bool:
        """Whether it is over: done, stopped or cancelled."""
        return self._process is None or self._process.is_over

    def wait(self) -> "Run":
        """Wait for the end; return this run. A cancelled one has ended as it was told to.

        Ctrl-C meanwhile cancels the run, waits for it to save, and goes on as Ctrl-C does.

        Raises:
          EdgeTrainError: nothing was started.
          TrainingStopped: it stopped early; `et.resume` goes on with it.
        """
        if self._process is not None:
            try:
                self._process.wait()
            except KeyboardInterrupt:
                self.cancel()
                self._process.wait()
                raise
        return self

    def cancel(self) -> None:
        """Stop after the step in progress, with everything saved; twice is fine."""
        if self._process is not None:
            self._process.cancel()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every event from the beginning on, those of `--json`, until the run is over.

        Raises:
          EdgeTrainError: as `wait`, after the last event.
        """
        if self._said is None:
            return
        at, rest = 0, b""
        while True:
            over = self.is_over  # asked first: nothing is said after it
            part = self._said.part(at)
            at += len(part)
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                with suppress(ValueError):  # a library wrote to standard output
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
            if not part:
                if over:
                    break
                time.sleep(_PAUSE_SECONDS)
        self.wait()

    @property
    def report(self) -> dict[str, Any]:
        """What `report.json` says at the end; waits for it.

        Raises:
          EdgeTrainError: there is none, since nothing was trained.
        """
        failure: EdgeTrainError | None = None
        try:
            self.wait()
        except TrainingStopped as error:  # its report says so
            failure = error
        try:
            found: dict[str, Any] = json.loads(RunFolder(self.folder).report.read_text("utf-8"))
        except OSError as error:
            raise failure or RunFolderError(
                f"{self.folder}: there is no report.json; the run was cancelled before its first "
                "step, or its folder was removed."
            ) from error
        return found

    @property
    def outputs(self) -> dict[str, Path]:
        """The files that were learned, by kind; waits for them.

        Raises:
          EdgeTrainError: as `report`.
        """
        return {kind: self.folder / name for kind, name in self.report["outputs"].items()}


def run(
    recipe: Any, mem: str | int | None = None, *, data: Given = None, walled: bool = True
) -> Run:
    """Start a run and return at once; `Run.wait` waits for it.

    It trains in a process of its own, which cannot hold more than `mem`, whichever thread calls.
    When this program ends, however that happens, the run stops with everything saved.

    Args:
      recipe: such as `PersonalizeRecipe(token="<my-dog>", class_word="dog")`.
      mem: most memory that the run may hold, "8GB" or bytes; None: that of the recipe.
      data: in memory, in place of the recipe's key: photos (PIL images, uint8 arrays), texts, or
        (text, label) pairs. They are written to `FOLDER.data` beside the run folder and kept, so
        that the run can be resumed.
      walled: False trains here, in this thread and process, and returns when it is over: then
        nothing but the run itself enforces the cap.

    Raises:
      InputError: a value that cannot be used; what needs the data or model read is raised by
        `wait`, `events` and `report`.
    """
    if not isinstance(recipe, Recipe) or not recipe.task:
        raise InputError(
            f"run: {type(recipe).__name__} is no recipe; make one, such as "
            'et.PersonalizeRecipe(token="<my-dog>", class_word="dog").'
        )
    if mem is not None:
        recipe = replace(recipe, cap_bytes=mem)  # type: ignore[arg-type] # a key reads "8GB"
    folder, is_new = reserved(recipe)
    try:
        recipe, made = write(recipe, data, folder)
    except BaseException:
        if is_new:
            folder.rmdir()
        raise
    recipe = replace(with_absolute_paths(recipe), out=str(folder))
    said = Said()
    if not walled:
        return _here(recipe, folder, said)
    text = tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".toml", delete=False)
    with text:
        text.write(to_toml(recipe))
    words = ("run", "--recipe", text.name, "--json")
    process = Process(words, said, Path(text.name), folder, (*made, *([folder] if is_new else [])))
    return Run(folder, said, process)


def _here(recipe: Recipe, folder: Path, said: Said) -> Run:
    from edge_train.api.observing import Events
    from edge_train.run import session

    session.run(recipe, Events(said))
    return Run(folder, said, None)


def resume(
    folder: str | Path,
    mem: str | int | None = None,
    *,
    steps: int | None = None,
    model: str | Path | None = None,
    module: str | None = None,
) -> Run:
    """Go on with a run from its last durable step; return at once, as `run` does.

    Args:
      mem: another cap; None: as before.
      steps: in all, more than were taken, also of a finished run; None: as before.
      model: where the model that it began with lies now; None: as before.
      module: "package:function" of a run of task module, named again: a run folder alone does not
        decide what is imported.

    Raises:
      RunFolderError: `folder` is no folder of a run.
    """
    folder = Path(folder).expanduser()
    if not (RunFolder(folder).recipe.is_file() or RunFolder(folder).journal.is_file()):
        raise RunFolderError(f"{RunFolder(folder).no_run()} `et.run` starts one.")
    words = ["run", "--resume", str(folder), "--json"]
    if mem is not None:
        words += ["--mem", mem if isinstance(mem, str) else shown(mem)]
    if steps is not None:
        words += ["--steps", str(steps)]
    if model is not None:
        words += ["--model", str(model)]
    if module is not None:
        words += ["--module", module]
    said = Said()
    return Run(folder, said, Process(words, said))


def reserved(recipe: Recipe) -> tuple[Path, bool]:
    """Return the folder of a new run, and whether it was made now: `out`, or a free `runs/TASK-n`.

    Raises:
      RunFolderError: it cannot be made.
    """
    if recipe.out is not None:
        return Path(recipe.out).expanduser().resolve(), False
    for number in count(1):
        folder = Path("runs", recipe.task + (f"-{number}" if number > 1 else "")).resolve()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder, True
        except FileExistsError:
            continue
        except OSError as error:
            raise RunFolderError(f"{folder}: cannot be made ({error.strerror}).") from error
    raise AssertionError("numbers do not end")
