"""Print what is the same in two runs of a small network: `two_networks.py RUN OTHER`.

Ends with status 1 where that differs which may not: the recipe, the data, the weights that a run
begins with. Sums of float32 come in an order that a processor's kernels choose.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from two_machines import records


def weights(path):
    """Return the weights of a checkpoint or of what was learned, by name."""
    return {n: a for n, a in load_file(path).items() if "state/" not in n}


def main(run, other):
    """Print the findings, a line each; return the exit status."""
    journals = [records(folder) for folder in (run, other)]
    first = [weights(folder / "checkpoints/best-00000000.safetensors") for folder in (run, other)]
    last = [weights(folder / "network.safetensors") for folder in (run, other)]
    here, there = (
        {
            "recipe's numbers": {
                key: value
                for key, value in journal[0]["recipe"]["values"].items()
                if key != "data"  # its path
            },
            "data": journal[0]["data_sha256"],
            "weights at first": {name: array.tobytes() for name, array in begun.items()},
        }
        for journal, begun in zip(journals, first, strict=True)
    )
    for name, value in here.items():
        print(f"{name}: {'the same bits' if value == there[name] else 'NOT THE SAME'}")
    for mine, its in zip(journals[0][1], journals[1][1], strict=True):
        line = f"step {mine['step']}: loss {mine['loss']:.9g} and {its['loss']:.9g}"
        if mine["eval"] is not None:
            line += f", evaluation {mine['eval']:.9g} and {its['eval']:.9g}"
        print(line)
    for name, array in last[0].items():
        apart = np.abs(array.astype(np.float64) - last[1][name]).max()
        of = f"of numbers up to {np.abs(array).max():.2g}"
        same = array.tobytes() == last[1][name].tobytes()
        print(
            f"learned {name}: {'the same bits' if same else f'differ by at most {apart:.2g} {of}'}"
        )
    scores = [
        json.loads((folder / "report.json").read_text())["metrics"]["test_accuracy"]
        for folder in (run, other)
    ]
    print(f"test accuracy: {scores[0]} and {scores[1]}")
    return int(here != there)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
