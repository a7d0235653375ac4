"""What `import edge_train` costs a program: milliseconds over a Python that does nothing."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import edge_train

_PAIRS = 20
_ROOT = str(Path(edge_train.__file__).parents[1])


def main(out: Path, _: int) -> str:
    """Start Python 20 times with and without the import, in turn; return the medians as a table.

    Args:
      out: folder of the results, `import.json`.
    """
    took: dict[str, list[float]] = {"pass": [], "import edge_train": []}
    environment = {**os.environ, "PYTHONPATH": _ROOT}
    for _ in range(_PAIRS):
        for code, times in took.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            times.append(1000 * (time.perf_counter() - began))
    pairs = zip(took["import edge_train"], took["pass"], strict=True)
    more = statistics.median(whole - bare for whole, bare in pairs)
    medians = {code: statistics.median(times) for code, times in took.items()}
    out.mkdir(parents=True, exist_ok=True)
    found = {"milliseconds": medians, "more": more, "pairs": _PAIRS}
    (out / "import.json").write_text(json.dumps(found, indent=2) + "\n")
    rows = [f"| `python -c '{code}'` | {median:.1f} |" for code, median in medians.items()]
    head = ["| command | milliseconds, median of 20 |", "|---|---|"]
    return "\n".join([*head, *rows, f"| more, median of 20 pairs | {more:.1f} |"])
