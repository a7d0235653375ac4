"""What a watch saw, kept small until the journal takes it."""

from typing import Any

_STRETCH_SECONDS = 0.1  # at first
_STRETCHES = 600  # a stretch grows to this part of the time passed, so a long run stays small


class History:
    """The most that was held in each stretch of time, and what was done about it.

    Stretches grow with the time passed.
    """

    def __init__(self) -> None:
        self._end = 0.0
        self._points: list[tuple[float, int, int, int]] = []
        self._gpu = False
        self._events: list[tuple[float, str]] = []

    @property
    def has_events(self) -> bool:
        """Whether something was noted that nobody took."""
        return bool(self._events)

    def note(self, seconds: float, text: str) -> None:
        """Keep what happened at an instant."""
        self._events.append((seconds, text))

    def add(self, seconds: float, held: int, anon: int, gpu: int | None = None) -> None:
        """Keep what a look found, in bytes; `gpu` is None where none is used."""
        self._gpu = self._gpu or gpu is not None
        if seconds >= self._end or not self._points:
            self._end = seconds + max(_STRETCH_SECONDS, seconds / _STRETCHES)
            self._points.append((seconds, held, anon, gpu or 0))
        else:
            first, most, most_anon, most_gpu = self._points[-1]
            most_gpu = max(most_gpu, gpu or 0)
            self._points[-1] = (first, max(most, held), max(most_anon, anon), most_gpu)

    def take_records(self, step: int, last: bool) -> list[dict[str, Any]]:
        """Return all of it as records of the journal; forget it.

        Args:
          step: the one in progress, for the record.
          last: also the stretch that is not over.
        """
        events, self._events = self._events, []
        records: list[dict[str, Any]] = [
            {"kind": "event", "step": step, "text": text, "seconds": round(seconds, 2)}
            for seconds, text in events
        ]
        stretches = self.take(last)
        return [*records, {"kind": "memory", "step": step, **stretches}] if stretches else records

    def take(self, last: bool) -> dict[str, list[Any]]:
        """Return the closed stretches (with `last`, all), each with its start; forget them."""
        closed = self._points if last else self._points[:-1]
        self._points = self._points[len(closed) :]
        if not closed:
            return {}
        seconds, held, anon, gpu = zip(*closed, strict=True)
        return {
            "seconds": [round(s, 2) for s in seconds],
            "held_bytes": list(held),
            "anon_bytes": list(anon),
            **({"gpu_bytes": list(gpu)} if self._gpu else {}),
        }
