"""`make bench-gpu`: `edge-train bench gpu` in a Python that need not have all of its packages."""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

from given import unusable  # noqa: E402 - found by the line above


def main() -> int:
    """Measure, or say in a sentence why this Python cannot; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests/gpu/bench.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", default="full", choices=("full", "tiny"))
    parser.add_argument("--limit", type=int, help="seconds for all of it")
    asked = parser.parse_args()
    if reason := unusable(asked.device, "make bench-gpu"):
        print(f"bench-gpu: {reason}", file=sys.stderr)
        return 2
    from edge_train.bench.gpu import BUDGET_SECONDS
    from edge_train.bench.gpu import main as measure
    from edge_train.errors import EdgeTrainError

    limit = asked.limit or BUDGET_SECONDS
    try:
        print(measure(asked.out, device=asked.device, size=asked.size, limit=limit))
    except EdgeTrainError as error:
        print(f"bench-gpu: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
