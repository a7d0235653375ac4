"""The training process of a supervised run, which `supervisor.py` starts: `WORDS run ...`."""

import atexit
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from edge_train.errors import NOT_STARTED, OutOfMemory
from edge_train.memory.link import ENDED_AT_ONCE, OUT_OF_MEMORY, THREAD_STACK, Link
from edge_train.memory.measure import measure
from edge_train.memory.shortage import bytes_asked, is_shortage, shortage
from edge_train.memory.streams import open_streams, settle_streams
from edge_train.memory.watch import Watch
from edge_train.process import interrupts
from edge_train.units import format_bytes

_PR_SET_PDEATHSIG = 1


def main(words: str, arguments: Sequence[str]) -> int:
    """Run a command behind the wall; return its exit status, or `OUT_OF_MEMORY`.

    Args:
      words: what `supervise` has to say, as JSON.
      arguments: of `edge-train`.
    """
    interrupts.listen(ENDED_AT_ONCE, "")  # blocked since before we began; the parent says it
    open_streams()
    given: dict[str, Any] = json.loads(words)
    die_with(given["supervisor"])
    resource.setrlimit(resource.RLIMIT_STACK, tuple(given["stack"]))  # the main thread's own again
    os.set_inheritable(given["pipe"], False)
    cap_bytes = given["cap_bytes"]
    watch = Watch(None, supervisor=given["supervisor"])
    link = Link(
        watch,
        given["supervisor"],
        given["wall"],
        given["changes"],
        given["reason"],
        given["pipe"],
        given.get("plan"),
        lambda plan: _again(words, {**given, "plan": plan, "lock": link.lock}),
        given.get("lock"),
    )
    link.began = given.get("began")
    if cap_bytes is not None:
        watch.give_up = lambda held: _end_before_the_cap(link, held)
        watch.enforce(cap_bytes, wall=True)
    watch.start()
    try:
        import edge_train.run.session  # noqa: F401 - so that what a run imports is counted below
        from edge_train import cli
        from edge_train.formats.tensor_store import warm_up

        warm_up()
        watch.count_idle()
        link.tell(loaded=True)
        return cli.main(arguments, link)
    except OutOfMemory as error:
        link.tell(shortage=str(error), least_bytes=error.least_bytes)
        return OUT_OF_MEMORY
    except Exception as error:
        if not is_shortage(error):
            link.tell(loaded=True, failed=True)  # whatever went wrong, it is not memory
            raise
        watch.spend_reserve()
        traceback.clear_frames(error.__traceback__)
        held = measure(given["supervisor"]).resident_bytes
        least = max(held + bytes_asked(error), cap_bytes or 0)
        link.tell(shortage=shortage(error, held), least_bytes=least)
        return OUT_OF_MEMORY
    finally:
        interrupts.ignore()
        settle_streams()


def leave(status: int) -> NoReturn:
    """End this process with a status, all that was said and registered done.

    Taking apart the modules of an engine costs half a second of a processor, and nothing of it is
    needed: what was learned is on the disk, and the memory of a process goes with it.
    """
    atexit._run_exitfuncs()
    settle_streams()
    os._exit(status)


def _end_before_the_cap(link: Link, held_bytes: int) -> NoReturn:
    link.tell(shortage=f"code was still being loaded at {format_bytes(held_bytes)}", least_bytes=0)
    os._exit(OUT_OF_MEMORY)


def _again(words: str, given: dict[str, Any]) -> NoReturn:
    """Become a fresh worker: same process, pipe and limits, nothing left of what was held."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))  # it sets its own, as a first one does
    resource.setrlimit(resource.RLIMIT_STACK, (THREAD_STACK, given["stack"][1]))
    os.set_inheritable(given["pipe"], True)
    if given["lock"] is not None:
        os.set_inheritable(given["lock"], True)
    signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.STOPPING)  # until the new one can answer
    settle_streams()
    new = json.dumps(given)
    command = [sys.executable, *(new if w == words else w for w in sys.orig_argv[1:])]
    os.execv(command[0], command)  # noqa: S606 - no shell


def die_with(supervisor: int) -> None:
    """Have the kernel end this process when the supervisor ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it ended before we asked
        sys.exit(NOT_STARTED)
