"""A part of the report that a task or another package adds: a record, and where it stands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.registry import Registry, load

Record = Mapping[str, Any]
PLACES = (
    "top",  # before all numbers: what was made, for the eye
    "result",  # after them: what it is good for, and how to use it
    "curves",
    "data",
    "end",
)  # after which of the page's own parts a section stands


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
      name: of the section, unique.
      render: makes its HTML from the run's folder, its summary and its journal; empty: nothing.
      place: one of `PLACES`; sections of one place stand in the order in which they are found.
      task: of the runs that it belongs to; None: of every run.
      shows: facts of the journal, or scores, that it shows; where it returns something, the table
        of settings leaves them out.

    Raises:
      ValueError: there is no such place.
    """

    name: str
    render: Callable[[Path, Record, Sequence[Record]], str]
    place: str = "end"
    task: str | None = None
    shows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"section {self.name!r}: place {self.place!r} is none of {PLACES}")


def _fleet(run: Path, summary: Record, records: Sequence[Record]) -> str:
    html: str = load("edge_train.report.fleet:render")(run, summary, records)
    return html


SECTIONS: tuple[Section, ...] = (Section(name="fleet", render=_fleet, place="curves"),)
sections: Registry[Section] = Registry("section", "edge_train.report.section", "SECTIONS")
