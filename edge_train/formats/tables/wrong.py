"""Rows that are left out of a table: counted, and the first three told."""

from dataclasses import dataclass, field
from pathlib import Path

from edge_train.errors import InputError

_SHOWN = 3


@dataclass
class Wrong:
    """What is wrong with rows of a table.

    Attributes:
      path: of the table.
      place: what its numbers count: line, record or row.
      rows: read so far, right and wrong.
      count: of wrong ones.
    """

    path: Path
    place: str = "line"
    rows: int = 0
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, number: int, why: str) -> None:
        """Count a wrong row; `why` goes on after its number."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(f"{self.place} {number} {why}")

    def clear(self) -> None:
        """Begin again: the table is read once more."""
        self.rows = self.count = 0
        self.first.clear()

    def sentence(self) -> str:
        """Return how many rows are left out and why, empty where none is."""
        if not self.count:
            return ""
        more = f"; and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        verb = "is" if self.count == 1 else "are"
        return (
            f"{self.count} of {self.rows} rows of {self.path.name} {verb} left out: "
            f"{'; '.join(self.first)}{more}"
        )

    def check(self, instead: str = "") -> None:
        """Refuse a table of which half the rows or more are wrong: it is meant otherwise.

        Args:
          instead: what else to type, for the end of the message.

        Raises:
          InputError: as described.
        """
        if self.count and 2 * self.count >= self.rows:
            raise InputError(
                f"{self.path}: {self.first[0]} ({self.count} of {self.rows} rows){instead}."
            )
