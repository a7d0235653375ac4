"""Let `python -m edge_train` be the `edge-train` command, and interrupt it without a traceback."""

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the current folder, put there by -m; what lies in it is never run


def main() -> int:
    """Run the command that was typed; Ctrl-C while it is still being loaded is told like later."""
    try:
        from edge_train.entry import main as entry

        return entry()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("edge-train: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
