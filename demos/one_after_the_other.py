"""Learn five kinds of clothes, then five others: `python demos/one_after_the_other.py`.

The second run has no picture of the first one's clothes, and the table at its end says what is left
of them; with `none` as a second word, what plain training leaves.
"""

import sys
from pathlib import Path

import numpy as np

import edge_train as et

CLOTHES = Path(__file__).parent / "data" / "fashion_mnist_sample.npz"


def main(out="runs/clothes", continual="cuber", steps=600):
    out = Path(out)
    out.mkdir(parents=True)
    before = None
    with np.load(CLOTHES) as every:
        for name, wanted in (("first", range(5)), ("second", range(5, 10))):
            some = {"class_names": every["class_names"]}
            for part in ("train", "test"):
                kept = np.isin(every[f"{part}_labels"], list(wanted))
                some |= {f"{part}_{of}": every[f"{part}_{of}"][kept] for of in ("images", "labels")}
            np.savez(out / f"{name}.npz", **some)
            recipe = et.NetworkRecipe(
                data=str(out / f"{name}.npz"), network="mlp 100 100", method="backprop",
                steps=steps, next=before, continual=continual if before else "cuber",
                out=str(out / name),
            )  # fmt: skip
            run = et.run(recipe, mem="250MB").wait()
            before = str(run.folder)
    return run.report["metrics"]["tasks"]


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
