"""Who watches a run in this process: a line for people, and events for `Run.events`."""

import io

from edge_train.api.said import Said
from edge_train.protocols import StepRecord
from edge_train.run.observer import Best, JsonEvents, Observer


class Events(JsonEvents):
    """JSON events into a binary file."""

    def __init__(self, file: Said) -> None:
        super().__init__(io.TextIOWrapper(io.FileIO(file.fileno(), "w", closefd=False)))


class Both:
    """An `Observer` that is two."""

    def __init__(self, first: Observer, second: Observer) -> None:
        self._two = (first, second)

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Training begins at `first_step`."""
        for one in self._two:
            one.started(first_step, steps, cap_bytes)

    def stepped(self, record: StepRecord, best: Best | None) -> None:
        """A step was taken."""
        for one in self._two:
            one.stepped(record, best)

    def said(self, text: str) -> None:
        """Something worth a line happened."""
        for one in self._two:
            one.said(text)

    def ended(self, status: str) -> None:
        """The run is over."""
        for one in self._two:
            one.ended(status)
