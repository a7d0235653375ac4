"""The `edge-train` command with something planted in its worker: `planted.py KIND run ...`."""

import sys

from edge_train import entry, worker
from edge_train.loop import Loop
from edge_train.memory import supervisor as supervise

KEPT = []


def leak():
    """Every step keeps two megabytes for good."""
    step = Loop.step

    def leaking(loop, number):
        KEPT.append(bytearray(b"x") * 2_000_000)
        return step(loop, number)

    Loop.step = leaking


def spike():
    """The fifth step takes far more than any cap of these tests, at once and for an instant."""
    step = Loop.step

    def spiking(loop, number):
        if number == 5:
            bytearray(b"x") * 1_000_000_000
        return step(loop, number)

    Loop.step = spiking


def no_wall():
    """The fifth step takes more than the cap, and nothing of the system's keeps it from that."""
    from edge_train.memory import watch

    watch.limit_data = lambda limit: True
    step = Loop.step

    def spiking(loop, number):
        if number == 5:
            bytearray(b"x") * 300_000_000
        return step(loop, number)

    Loop.step = spiking


def lying_plan():
    """A call of the model needs four megabytes a sample that nobody planned."""
    from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

    feeds = OnnxDiffusion.feeds

    def hungry(runtime, batch, points, limit=None):
        for at, values in feeds(runtime, batch, points, limit):
            unplanned = bytearray(b"x") * (4_000_000 * (at.stop - at.start))
            yield at, values
            del unplanned

    OnnxDiffusion.feeds = hungry


def short_machine():
    """Other programs take the machine's memory."""
    from pathlib import Path

    from edge_train.memory import watch

    meminfo = Path(sys.argv[0]).with_name("meminfo")
    start = watch.Watch.__init__
    watch._SLOW_SECONDS = 0.05

    def changed(self, cap_bytes, *, supervisor=None):
        start(self, cap_bytes, supervisor=supervisor, meminfo=meminfo)

    watch.Watch.__init__ = changed


def stranger():
    """As `spike`; before every worker but the first, another process wants the run's folder."""
    spike()


def knock(worker_of):
    """Return a function that starts workers, and notes who could have come between two of them."""
    import fcntl
    from pathlib import Path

    def start(arguments, *rest):
        if "--resume" in arguments:
            with open(Path(arguments[2], "lock")) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found = "free"
                except BlockingIOError:
                    found = "held"
            with open("knocked", "a") as notes:
                notes.write(f"{found}\n")
        return worker_of(arguments, *rest)

    return start


PLANTS = {f.__name__: f for f in (leak, spike, no_wall, lying_plan, short_machine, stranger)}

if __name__ == "__main__":
    kind, first, *rest = sys.argv[1:]
    if first.startswith("{"):
        PLANTS[kind]()
        sys.exit(worker.main(first, rest))
    supervise._WORKER = (__file__, kind)
    if kind == "no_wall":
        supervise.make_group = lambda limit: None
    if kind == "stranger":
        supervise._worker = knock(supervise._worker)
    sys.argv[1:] = [first, *rest]
    sys.exit(entry.main())
