"""Let `python -m edge_train` be the `edge-train` command, which can be interrupted at any time."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `listen`: an end without a traceback

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the current folder, put there by -m; what lies in it is never run

from edge_train.process import interrupts


def main() -> int:
    """Run the command that was typed; return its exit status."""
    interrupts.listen()  # before anything else is loaded
    from edge_train.entry import main as entry

    status = entry()
    interrupts.ignore()
    return status


if __name__ == "__main__":
    sys.exit(main())
