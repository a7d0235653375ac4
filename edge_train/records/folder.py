"""The folder of a run: what lies in it, by name."""

import os
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import RunFolderError
from edge_train.paths import special_kind


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    >>> RunFolder(Path("runs/dog")).journal.as_posix()
    'runs/dog/journal.jsonl'
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe, every default filled in."""
        return self.path / "recipe.toml"

    @property
    def damaged_recipe(self) -> Path:
        """A recipe that could not be read, moved here before it was made again."""
        return self.path / "recipe.damaged.toml"

    @property
    def plan(self) -> Path:
        """What the run was expected to hold."""
        return self.path / "plan.json"

    @property
    def journal(self) -> Path:
        """What happened, a record a line; only ever appended to."""
        return self.path / "journal.jsonl"

    @property
    def damaged_journal(self) -> Path:
        """A copy of a journal with a torn end, made before that was cut off."""
        return self.path / "journal.damaged.jsonl"

    @property
    def lock(self) -> Path:
        """What the process that writes here holds; says which one that is."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Parameters and states at a step, and the best parameters."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Pictures."""
        return self.path / "samples"

    @property
    def report(self) -> Path:
        """The numbers of the report."""
        return self.path / "report.json"

    @property
    def page(self) -> Path:
        """The report as a page."""
        return self.path / "report.html"

    def no_run(self) -> str:
        """Return what is said of a folder without a run; the one above it may be one."""
        above = self.path.absolute().parent
        where = f" The run is {above}." if RunFolder(above).recipe.is_file() else ""
        return f"{self.path}: no recipe.toml; this is not a run folder.{where}"

    def make(self) -> None:
        """Make the folder and the folders in it.

        Raises:
          OSError: they cannot be made.
        """
        for part in (self.path, self.samples, self.checkpoints):
            part.mkdir(parents=True, exist_ok=True)

    def check_kinds(self) -> None:
        """Refuse pipes, devices and sockets, also behind links: readers would wait forever.

        Raises:
          RunFolderError: one lies in this folder or in one of its folders.
        """
        for place, _, names in os.walk(self.path):  # these are among the names of files
            for name in names:
                path = Path(place, name)
                try:
                    kind = special_kind(path.stat().st_mode)
                except OSError:  # whoever opens it says what is wrong
                    continue
                if kind:
                    raise RunFolderError(
                        f"{path} is {kind}, and nothing here reads one; remove it, then type the "
                        "command again."
                    )
