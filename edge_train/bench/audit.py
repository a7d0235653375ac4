"""Audits of one's own models: accuracy under a patch, foreign documents in a search.

    edge-train bench audit --data FOLDER --model lite0.onnx [--samples 8] [--limit 2000]
    edge-train bench audit --data FOLDER --model ENCODER_FOLDER [--samples 20] [--limit 200]

With an .onnx backbone FOLDER holds cifar10_subset_jpeg.npz and dreambooth/; with a text encoder it
holds cranfield/. Runs and audits that are in --out already are read, not made again.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.bench import run, table
from edge_train.bench.cranfield import write_collection
from edge_train.errors import InputError, TrainingStopped
from edge_train.memory.fresh import command as command_of
from edge_train.tasks.images.audit.conditions import RULES
from edge_train.tasks.retrieve.audit.audit import DEFENCES

_TRAIN = 5  # times as many pictures to train on as to score
_CAP = "500MB"
_SEARCH_CAP = "1500MB"


def main(
    out: Path,
    seeds: int,  # noqa: ARG001 - every bench has it; one is run
    data: Path | None = None,
    model: Path | None = None,
    samples: int | None = None,
    limit: int | None = None,
) -> str:
    """Return the tables.

    Args:
      seeds: not read: one is run.
      samples: test pictures of each class, or queries.
      limit: forward passes of a patch, or of a query.

    Raises:
      InputError: data or model is not named.
    """
    if data is None or model is None:
        raise InputError(
            "bench audit needs --data FOLDER and --model, a backbone (.onnx) or a folder with a "
            "text encoder; docs/benchmarks/audit.md says which."
        )
    folder = out / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    if model.is_dir():
        return _search(folder, data, model, samples or 20, limit or 200)
    return _images(folder, data, model, samples or 8, limit or 2000)


def _images(folder: Path, data: Path, model: Path, samples: int, limit: int) -> str:
    sets = {"CIFAR-10 subset": _cifar(data, folder / "cifar", samples)}
    if (data / "dreambooth").is_dir():
        sets["31 photos"] = _photos(data / "dreambooth", folder / "photos")
    texts = []
    for name, pictures in sets.items():
        place = folder / f"run-{pictures.name}"
        words = (str(pictures), "--task", "images", "--model", str(model), "--mem", _CAP)
        run(place, *words)
        more = ("--harden", "--forwards", str(limit), "--mem", _CAP, "--threads", "1")
        found = _audited(place, *more)
        rows = [
            (row["head"], row["patch"], *(f"{100 * row[rule]:.1f}" for rule in RULES))
            for row in found["rows"]
        ]
        back = ", ".join(
            f"{rule} {'nothing was lost' if share is None else f'{100 * share:.0f} %'}"
            for rule, share in found["won_back"].items()
        )
        texts.append(
            f"{name}: {found['samples']} samples of {found['photos']} {found['part']} pictures, "
            f"{limit} forward passes a patch; right, %:\n\n"
            + table(("head", "patch", *RULES), rows)
            + f"\n\nHardening won back: {back}."
        )
    return "\n\n".join(texts)


def _search(folder: Path, data: Path, model: Path, queries: int, limit: int) -> str:
    collection = folder / "cranfield"
    if not collection.is_dir():
        write_collection(data / "cranfield", collection)
    place = folder / "run-cranfield"
    words = (str(collection), "--task", "retrieve", "--model", str(model), "--mem", _SEARCH_CAP)
    run(place, *words, "--length", "128", "--steps", "40")
    more = ("--queries", str(queries), "--forwards", str(limit), "--mem", _SEARCH_CAP)
    found = _audited(place, *more, "--threads", "1")
    rows = [(row["way"], *(f"{100 * row[n]:.0f} %" for n in DEFENCES)) for row in found["rows"]]
    spent = ", ".join(f"{number:.0f}" for number in found["spent"].values())
    rows.append(("nDCG@10 of own queries", *(f"{found['cost'][n]:.3f}" for n in DEFENCES)))
    return (
        f"Cranfield, {found['queries']} queries, first {found['first']}, at most {limit} forward "
        f"passes a search ({spent} spent on average), {found['encoded_words']} words encoded "
        "once:\n\n" + table((f"foreign document of {found['words']} words", *DEFENCES), rows)
    )


def _audited(place: Path, *words: str) -> Mapping[str, Any]:
    file = place / "audit.json"
    if not file.is_file():
        command = command_of(["audit", str(place), *words])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TrainingStopped(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    found: Mapping[str, Any] = json.loads(file.read_text())
    return found


def _cifar(data: Path, out: Path, samples: int) -> Path:
    """Write so many test pictures of each class, and five times as many to train on."""
    if out.is_dir():
        return out
    with np.load(data / "cifar10_subset_jpeg.npz", allow_pickle=False) as stored:
        names = [str(name) for name in stored["class_names"]]
        for part, most in (("train", _TRAIN * samples), ("test", samples)):
            raw, starts = stored[f"{part}_jpeg"].tobytes(), stored[f"{part}_offsets"]
            labels = stored[f"{part}_labels"]
            for label, name in enumerate(names):
                place = out / part / name
                place.mkdir(parents=True)
                for number in np.flatnonzero(labels == label)[:most].tolist():
                    content = raw[int(starts[number]) : int(starts[number + 1])]
                    (place / f"{number:05d}.jpg").write_bytes(content)
    return out


def _photos(source: Path, out: Path) -> Path:
    """Link the photos of each subject."""
    out.mkdir(exist_ok=True)
    for subject in source.iterdir():
        if subject.is_dir() and not (out / subject.name).is_dir():
            (out / subject.name).mkdir()
            for photo in subject.iterdir():
                (out / subject.name / photo.name).write_bytes(photo.read_bytes())
    return out
