"""Measures at every step, and stops the run when it holds more than the cap."""

from collections.abc import Callable
from dataclasses import replace

from edge_train.errors import TrainingStopped
from edge_train.memory.measure import Usage, measure
from edge_train.units import format_bytes


class Guard:
    """Measures at every step and stops the run when it holds more than the cap.

    Args:
      cap_bytes: the most the run may hold; None means measured but unlimited.
      device_bytes: the most held on a discrete accelerator as its engine counts, 0 on unified
        memory. Where it is not zero, the cap is about device memory.
      host_cap_bytes: the most the host side may hold beside a discrete accelerator.
      root: the process whose tree is measured; this one if not given.
      driver_bytes: the most held there as the driver counts, context included; 0 where it does
        not. The larger of the two counts.
      shared_bytes: the most that an integrated accelerator holds of the machine's memory, which is
        not counted as memory of any process.
    """

    def __init__(
        self,
        cap_bytes: int | None,
        device_bytes: Callable[[], int],
        host_cap_bytes: int | None = None,
        root: int | None = None,
        driver_bytes: Callable[[], int] = lambda: 0,
        shared_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.cap_bytes = cap_bytes
        self._device_bytes = device_bytes
        self._host_cap_bytes = host_cap_bytes
        self._driver_bytes, self._shared_bytes = driver_bytes, shared_bytes
        self._device_peak = 0
        self._root = root

    def usage(self) -> Usage:
        """Return what is held now, without judging it."""
        usage = measure(self._root)
        device = max(self._device_bytes(), self._driver_bytes())
        if device == 0:
            shared = self._shared_bytes()
            return replace(
                usage,
                resident_bytes=usage.resident_bytes + shared,
                peak_bytes=usage.peak_bytes + shared,
            )
        self._device_peak = max(self._device_peak, device)
        return Usage(device, self._device_peak, device)

    def check(self, step: int) -> Usage:
        """Return what is held now.

        Raises:
          TrainingStopped: the peak is above the cap.
        """
        usage = self.usage()
        who = "the run, on the GPU," if self._device_peak else "the run"
        _compare(step, who, usage.peak_bytes, "--mem", self.cap_bytes)
        if self._host_cap_bytes is not None:
            host = measure(self._root).peak_bytes
            _compare(step, "the host side", host, "--host-mem", self._host_cap_bytes)
        return usage


def _compare(step: int, who: str, peak: int, flag: str, cap: int | None) -> None:
    if cap is not None and peak > cap:
        raise TrainingStopped(
            f"step {step}: {who} held {format_bytes(peak)}, the cap is {format_bytes(cap)}; "
            f"stopped. Give it a larger {flag}, or --quant int8."
        )
