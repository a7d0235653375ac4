"""Joules that a machine used, from the counters that it has.

Intel and AMD processors count the energy of a package (RAPL, in /sys/class/powercap); a Jetson
measures voltage and current of its supply (INA3221, in /sys/class/hwmon). Both are of the whole
machine or processor, so what else runs is counted, too.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edge_train.power.files import folders, number_of, text_of

SYS = Path("/sys")
_PERIOD_SECONDS = 1.0  # a package of 250 W comes round every quarter of an hour; power is sampled
_WHOLE = ("VDD_IN", "POM_5V_IN")  # rails of a Jetson that feed all the others


@dataclass(frozen=True)
class Zone:
    """A counter of RAPL that goes up and begins again at 0 after `most` microjoules."""

    path: Path
    most: int

    def since(self, before: int, now: int) -> int:
        """Return the microjoules between two readings less than one round apart."""
        return now - before if now >= before else now + self.most - before


class Rapl:
    """The packages of a processor and the memory beside them."""

    def __init__(self, zones: list[Zone]) -> None:
        self._zones = zones
        self._last = [number_of(zone.path) for zone in zones]
        names = [text_of(zone.path.parent / "name") or "?" for zone in zones]
        self.name = f"RAPL ({', '.join(names)})"

    def joules(self) -> float:
        """Return the energy since the last call."""
        total = 0
        for index, zone in enumerate(self._zones):
            before, now = self._last[index], number_of(zone.path)
            if before is not None and now is not None:
                total += zone.since(before, now)
            self._last[index] = now
        return total / 1e6


class Ina3221:
    """Rails of a Jetson: millivolts times milliamperes, each sample for the time since the last."""

    def __init__(self, rails: list[tuple[str, Path, Path]]) -> None:
        self._rails = rails
        self._at, self._watts = time.monotonic(), self._power()
        self.name = f"INA3221 ({', '.join(name for name, _, _ in rails)})"

    def _power(self) -> float:
        found = ((number_of(volts), number_of(amperes)) for _, volts, amperes in self._rails)
        return sum(v * a for v, a in found if v is not None and a is not None) / 1e6

    def joules(self) -> float:
        """Return the energy since the last call: the mean of both samples' power over that time."""
        now, watts = time.monotonic(), self._power()
        joules = (now - self._at) * (watts + self._watts) / 2
        self._at, self._watts = now, watts
        return joules


Counter = Rapl | Ina3221


def open_counter(sys: Path = SYS) -> tuple[Counter | None, str]:
    """Return the counter of this machine, or None, and a sentence about it for `doctor`."""
    zones, closed = _zones(sys)
    if zones:
        counter: Counter = Rapl(zones)
        return counter, f"energy: {counter.name}, other programs included"
    rails = _rails(sys)
    if rails:
        counter = Ina3221(rails)
        return counter, f"energy: {counter.name}, sampled every second, other programs included"
    if closed:
        return None, (
            f"energy: {closed[0]} may not be read by this user, so no joules are reported; "
            "`sudo chmod a+r` on it until the next start"
        )
    return None, "energy: no counter here (RAPL or INA3221), so no joules are reported"


def _zones(sys: Path) -> tuple[list[Zone], list[Path]]:
    """Return the zones that can be read, and the files of those that cannot.

    Packages, and memory, which no package counts. A core is part of its package; `psys` counts the
    packages again, and `intel-rapl-mmio` the same package by another way.
    """
    found, closed = [], []
    for folder in folders("class/powercap/intel-rapl:*", sys):
        kind = text_of(folder / "name") or ""
        if not (kind.startswith("package") or kind == "dram"):
            continue
        path, most = folder / "energy_uj", number_of(folder / "max_energy_range_uj")
        if number_of(path) is None or most is None:
            closed.append(path)
        else:
            found.append(Zone(path, most))
    return found, closed


def _rails(sys: Path) -> list[tuple[str, Path, Path]]:
    """Return name, voltage and current of each rail; only the one that feeds all, where it is."""
    found = []
    for folder in folders("class/hwmon/hwmon*", sys):
        if text_of(folder / "name") != "ina3221":
            continue
        for volts in folders("in*_input", folder):
            number = volts.name.removeprefix("in").removesuffix("_input")
            amperes = folder / f"curr{number}_input"
            if number_of(volts) is not None and number_of(amperes) is not None:
                name = text_of(folder / f"in{number}_label") or f"rail {number}"
                found.append((name, volts, amperes))
    return [rail for rail in found if rail[0] in _WHOLE] or found


class Meter:
    """Adds up the joules of a run, sampled every second by a thread of its own.

    Attributes:
      name: of the counter; empty where there is none, and then no thread is started.
    """

    def __init__(self, counter: Counter | None) -> None:
        self.name = counter.name if counter is not None else ""
        self._counter, self._joules = counter, 0.0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="energy meter", daemon=True)
        if counter is not None:
            self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(_PERIOD_SECONDS):
            self._add()

    def _add(self) -> None:
        with self._lock:
            if self._counter is not None:
                self._joules += self._counter.joules()

    def joules(self) -> float | None:
        """Return the energy since this meter was made; None without a counter."""
        if self._counter is None:
            return None
        self._add()
        return self._joules

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
