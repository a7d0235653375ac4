"""Print what is the same in two runs of one recipe on two machines: `two_machines.py RUN OTHER`.

Ends with status 1 where that differs which may not: the recipe, the artifact, the bits that a run
begins with. Float kernels differ in their last bits, and training goes on from there.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def records(run):
    """Return the first record of a run's journal and its steps."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return lines[0], [line for line in lines if line["kind"] == "step"]


def bits(run):
    """Return what has to be the same on every machine, by the name it is printed with."""
    first, _ = records(run)
    encoded = load_file(run / "start.safetensors")
    captions = {name: array for name, array in encoded.items() if array.dtype.kind == "i"}
    photos = sorted((run / "samples").glob("photo-*.png"))
    return {
        "recipe": first["recipe"]["sha256"],
        "artifact": first["facts"]["model_sha256"],
        "photos as pictures": [path.read_bytes() for path in photos],
        "captions as tokens": {name: array.tolist() for name, array in captions.items()},
        "token at first": token(run / "checkpoints/best-00000000.safetensors").tolist(),
    }


def token(path):
    """Return the only parameter of a checkpoint or a token's file."""
    tensors = load_file(path)
    return next(array for name, array in tensors.items() if "state/" not in name).ravel()


def main(run, other):
    """Print the findings, a line each; return the exit status."""
    here, there = bits(run), bits(other)
    for name, value in here.items():
        print(f"{name}: {'the same bits' if value == there[name] else 'NOT THE SAME'}")
    latents = [load_file(folder / "start.safetensors")["mean"] for folder in (run, other)]
    print(f"encoded photos: differ by at most {np.abs(latents[0] - latents[1]).max():.2g}")
    for mine, its in zip(records(run)[1], records(other)[1], strict=True):
        line = f"step {mine['step']}: loss {mine['loss']:.5f} and {its['loss']:.5f}"
        if mine["eval"] is not None:
            line += f", evaluation {mine['eval']:.5f} and {its['eval']:.5f}"
        print(line)
    ends = [token(next(folder.glob("*-item.safetensors"))) for folder in (run, other)]
    print(f"learned token: correlation {np.corrcoef(*ends)[0, 1]:.3f}")
    return int(here != there)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
