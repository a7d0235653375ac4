"""The `edge-train` command, ended at a random instant: `dying.py RECORDS SECONDS run ...`.

The kernel ends it, as `kill -9` would, when it has written RECORDS lines of its journal and then
used SECONDS of processor time; with no RECORDS that counts from its start. So neither a busy nor a
slow machine decides where it dies. Checkpoints are written as often as they may, to die in them.
With `interrupt` for SECONDS it gets, at that record, what Ctrl-C sends.
"""

import os
import signal
import sys
from functools import partial


def die_in(seconds):
    """Let the kernel end this process: nobody handles this signal, so no code of ours runs."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def interrupt():
    """Send this process what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)


def plant(records, act):
    """Act once this process has written so many records."""
    from edge_train.loop import Loop
    from edge_train.records.journal import Journal

    append, fit, written = Journal.append, Loop.fit, []

    def counting(book, *arguments, **options):
        append(book, *arguments, **options)
        written.append(None)
        if len(written) == records:
            act()

    def saving(loop, *arguments, **options):
        loop.checkpoint_seconds = 0.0
        return fit(loop, *arguments, **options)

    Journal.append, Loop.fit = counting, saving


if __name__ == "__main__":
    records, seconds, *rest = sys.argv[1:]
    act = interrupt if seconds == "interrupt" else partial(die_in, float(seconds))
    if int(records) == 0:
        act()
    from edge_train import cli

    plant(int(records), act)
    sys.exit(cli.main(rest))
