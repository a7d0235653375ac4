"""Whether the processor is slowed down because it is hot or its supply is weak: said, no more."""

from pathlib import Path

from edge_train.power.files import folders, number_of, text_of

SYS = Path("/sys")
_FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"  # of a Raspberry Pi, as vcgencmd
_BITS = {
    0x1: "the voltage is too low",
    0x2: "the clock is capped",
    0x4: "it is throttled",
    0x8: "it is at its soft limit of temperature",
}
_COUNTS = "devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"  # of Intel's


class Throttling:
    """Looks whether the processor is throttled, and says so once for each reason."""

    def __init__(self, sys: Path = SYS) -> None:
        self._sys = sys
        self._counted = self._count()
        self._said: set[str] = set()

    def news(self) -> str | None:
        """Return a sentence about what slows the processor down now; None: nothing new."""
        reasons = [reason for reason in self._reasons() if reason not in self._said]
        if not reasons:
            return None
        self._said.update(reasons)
        hot = self._hottest()
        at = f" at {hot:.0f} degrees Celsius" if hot is not None else ""
        return (
            f"the processor is slowed down{at}: {', '.join(reasons)}; steps take longer, and "
            "nothing that was learned is lost"
        )

    def _reasons(self) -> list[str]:
        bits = number_of(self._sys / _FIRMWARE, 16) or 0
        found = [text for bit, text in _BITS.items() if bits & bit]
        if self._count() > self._counted:
            found.append("it is throttled")
        for folder in folders("class/thermal/cooling_device*", self._sys):
            kind = text_of(folder / "type") or ""
            slows = kind == "Processor" or kind.startswith(("cpufreq", "thermal-cpufreq"))
            if slows and (number_of(folder / "cur_state") or 0) > 0:
                found.append("its clock is held down to cool it")
                break
        return list(dict.fromkeys(found))

    def _count(self) -> int:
        return sum(number_of(path) or 0 for path in folders(_COUNTS, self._sys))

    def _hottest(self) -> float | None:
        zones = folders("class/thermal/thermal_zone*/temp", self._sys)
        found = [value for path in zones if (value := number_of(path)) is not None]
        return max(found) / 1000 if found else None
