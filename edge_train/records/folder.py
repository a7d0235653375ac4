"""The folder of a run: what lies in it, by name."""

from dataclasses import dataclass
from pathlib import Path


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

    def make(self) -> None:
        """Make the folder and the folders in it.

        Raises:
          OSError: they cannot be made.
        """
        for part in (self.path, self.samples, self.checkpoints):
            part.mkdir(parents=True, exist_ok=True)
