"""Let `python -m edge_train` be the `edge-train` command, which can be interrupted at any time."""

import sys

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
