"""`--when`: whether now is a time to train: on mains power, at night, or in hours of a day."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import InputError
from edge_train.power.files import folders, text_of
from edge_train.units import shown

SUPPLIES = Path("/sys/class/power_supply")
NIGHT = "22:00-06:00"
_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class When:
    """A time to train.

    Attributes:
      words: as they were typed.
      begin, end: minutes after midnight, local time; `end` may be on the next day. None: on mains
        power at any hour.
    """

    words: str
    begin: int | None = None
    end: int | None = None

    def objection(
        self, clock: time.struct_time | None = None, supplies: Path | None = None
    ) -> str | None:
        """Return why now is no time to train, as part of a sentence; None: it is one.

        Nothing is kept between two calls, so a clock that is set, forwards or backwards, counts
        from the next call on.

        Args:
          clock: the local time, that of the system if not given.
          supplies: where the system tells of mains and batteries.
        """
        if self.begin is None or self.end is None:
            return _battery(supplies or SUPPLIES)
        clock = clock or time.localtime()
        now = 60 * clock.tm_hour + clock.tm_min
        inside = self.begin <= now < self.end
        if self.begin > self.end:  # over midnight
            inside = now >= self.begin or now < self.end
        if inside:
            return None
        return f"it is {now // 60:02d}:{now % 60:02d}, and --when says {_hours(self)}"


def parse_when(text: str) -> When:
    """Return the time that `mains`, `night` or `HH:MM-HH:MM` names.

    Raises:
      InputError: it names none, or the hours are empty.

    >>> parse_when("22:30-06:00").begin, parse_when("mains").begin
    (1350, None)
    """
    if text == "mains":
        return When(text)
    match = _HOURS.fullmatch(NIGHT if text == "night" else text.replace(" ", ""))
    if match is None:
        raise InputError(
            f"--when {shown(text)} is not known; write mains, night (that is {NIGHT}) or hours "
            "such as 22:00-06:00."
        )
    hours = [int(part) for part in match.groups()]
    begin, end = 60 * hours[0] + hours[1], 60 * hours[2] + hours[3]
    if begin == end:
        raise InputError(
            f"--when {shown(text)} ends when it begins; write hours such as 22:00-06:00."
        )
    return When(text, begin, end)


def check_known(when: When) -> None:
    """Refuse `mains` where the system does not tell of its power.

    Raises:
      InputError: it does not.
    """
    if when.begin is None and sys.platform != "linux":
        raise InputError(
            "--when mains needs Linux's /sys/class/power_supply, which is not here; name hours, "
            "such as --when 22:00-06:00."
        )


def _hours(when: When) -> str:
    assert when.begin is not None
    assert when.end is not None
    first, last = (f"{m // 60:02d}:{m % 60:02d}" for m in (when.begin, when.end))
    return f"{when.words} ({first}-{last})" if when.words == "night" else f"{first}-{last}"


def _battery(supplies: Path) -> str | None:
    """Return which battery gives the power; None on mains: a machine without one is on it.

    A power bank that a Raspberry Pi cannot ask is mains to it.
    """
    batteries: list[tuple[str, str]] = []
    for folder in folders("*", supplies):
        kind = text_of(folder / "type") or ""
        if (kind == "Mains" or kind.startswith("USB")) and text_of(folder / "online") == "1":
            return None
        if kind == "Battery" and text_of(folder / "scope") != "Device":  # not that of a mouse
            batteries.append((folder.name, text_of(folder / "status") or "Unknown"))
    if any(status in ("Charging", "Full", "Not charging") for _, status in batteries):
        return None
    for name, status in batteries:
        says = "is discharging" if status == "Discharging" else "does not say that it is charged"
        return f"the machine is on battery ({name} {says}), and --when says mains"
    return None
