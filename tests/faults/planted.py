"""Faults planted into a process that runs a command: at its n-th change of a file, by no clock."""

import builtins
import errno
import io
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path


class Writes:
    """Counts every write, sync, rename, truncation and removal that the product does.

    Args:
      act: called with the count before each, may raise OSError; its answer is how much of a write
        is done before `after` is called, None for all of it.
    """

    def __init__(self, act: Callable[[int], None]) -> None:
        self.count, self._act = 0, act

    def step(self) -> None:
        self.count += 1
        self._act(self.count)

    def plant(self) -> None:
        """Put the counter in place of what the product calls."""
        for name in ("replace", "fsync", "unlink"):
            setattr(os, name, self._counted(getattr(os, name)))
        counter = self

        class File(io.FileIO):
            def write(self, content):
                whole = memoryview(content).cast("B")
                written = []  # a process that goes on after its fault writes the rest

                def half():
                    written.append(super(File, self).write(whole[: len(whole) // 2]))

                counter.half = half
                try:
                    counter.step()
                finally:
                    counter.half = None
                return sum(written) + super().write(whole[sum(written) :])

            def truncate(self, size=None):
                counter.step()
                return super().truncate(size)

        opening = builtins.open

        def opened(path, mode="r", *arguments, **options):
            if mode not in ("wb", "ab"):  # as all do that write a run folder
                return opening(path, mode, *arguments, **options)
            counter.step()
            return File(path, mode.replace("b", ""))

        self.half = None
        builtins.open = opened

    def _counted(self, function):
        def counted(*arguments, **options):
            self.step()
            return function(*arguments, **options)

        return counted


def counting(report: Path) -> Callable[[], None]:
    """Return a plant that keeps the count in a file."""

    def plant() -> None:
        file = os.open(report, os.O_WRONLY | os.O_CREAT)
        Writes(lambda count: os.pwrite(file, b"%d" % count, 0)).plant()

    return plant


def at_write(number: int, act: Callable[[Writes], None]) -> Callable[[], None]:
    """Return a plant that acts before the n-th change of a file."""

    def plant() -> None:
        def look(count: int) -> None:
            if count == number:
                act(writes)

        writes = Writes(look)
        writes.plant()

    return plant


def full_from(number: int, times: int) -> Callable[[], None]:
    """Return a plant of a disk that has no room at the n-th change and at some after it."""

    def plant() -> None:
        def look(count: int) -> None:
            if number <= count < number + times:
                if writes.half is not None:
                    writes.half()  # what fitted
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        writes = Writes(look)
        writes.plant()

    return plant


def kill(writes: Writes) -> None:
    """End the whole tree, in the middle of a write where it is one."""
    if writes.half is not None:
        writes.half()
    os.killpg(0, signal.SIGKILL)


def sent(number: int) -> Callable[[Writes], None]:
    """Return an act that sends the tree a signal."""
    return lambda writes: os.killpg(0, number)


def vanish(folder: Path) -> Callable[[Writes], None]:
    """Return an act that removes the run's folder."""
    return lambda writes: shutil.rmtree(folder, ignore_errors=True)


def jumping(seed: int) -> Callable[[], None]:
    """Return a plant of clocks that jump, also backwards where the system's may."""

    def plant() -> None:
        draws, ahead = random.Random(seed), [0.0]

        def jumped(function, back):
            def now():
                if draws.random() < 0.2:
                    ahead[0] += draws.choice((1e-3, 60.0, 86_400.0))
                shift = ahead[0] - (draws.choice((0.0, 1e6)) if back else 0.0)
                return function() + shift

            return now

        time.time = jumped(time.time, back=True)
        time.monotonic = jumped(time.monotonic, back=False)
        time.perf_counter = jumped(time.perf_counter, back=False)

    return plant


def without(streams: tuple[int, ...], full: bool) -> Callable[[], None]:
    """Return a plant that closes streams, or has them lead to a device that is full."""

    def plant() -> None:
        for stream in streams:
            if full:
                os.dup2(os.open("/dev/full", os.O_WRONLY), stream)
            else:
                os.close(stream)

    return plant
