"""What runs keep with a checksum and read again: image classifiers, earlier tasks, search indexes.

An attacker writes the checksums anew (`damage.py` seals these samples again), so what the files
say is believed as little as that of anybody's.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from samples import GOLDEN, Sample

_ROWS = 12  # of pictures, passages and test samples


def kept_samples() -> list[Sample]:
    """Return all of them."""
    classifier = (GOLDEN / "image-classifier-v1.safetensors").read_bytes()
    return [
        _one("classifier.safetensors", classifier, _read_classifier),
        _one("tasks.safetensors", _tasks(), _read_tasks),
        _one("features.safetensors", _features(), _read_features),
        _index(),
        *_collections(),
    ]


def _one(name: str, content: bytes, read) -> Sample:
    return Sample(f"kept/{name}", {name: content}, (name,), read, name)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _read_classifier(folder: Path, work: Path) -> None:
    from edge_train.tasks.images.answering import Answering
    from edge_train.tasks.images.classifier_file import load_classifier

    found = load_classifier(folder / "classifier.safetensors")
    for answer in Answering(found).answers(np.ones((2, found.shape.width), np.float32)):
        json.dumps({"class": answer.label, "probability": answer.probability}, allow_nan=False)
    found.save(work / "again.safetensors")


def _tasks() -> bytes:
    from edge_train.formats.learned_tasks import Directions, LearnedTask, LearnedTasks, save

    draws = np.random.default_rng(6)
    labels = np.arange(_ROWS) % 2
    tasks = tuple(
        LearnedTask(f"t{n}", (0, 1), "1" * 64, (0.5,) * (n + 1), np.ones((_ROWS, 4)), labels)
        for n in range(2)
    )
    owned = np.array([[True, False], [True, True]])
    gradients = tuple(
        draws.standard_normal((3, int(own.sum()))).astype(np.float32) for own in owned
    )
    codes = draws.integers(-127, 128, (4, 2)).astype(np.int8)
    one = Directions(codes, np.ones(2, np.float32), owned, gradients)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "t", LearnedTasks(tasks, {"0.weight": one}))
        return (Path(folder) / "t").read_bytes()


def _read_tasks(folder: Path, work: Path) -> None:
    from edge_train.formats import learned_tasks

    found = learned_tasks.load(folder / "tasks.safetensors")
    learned_tasks.save(work / "again", found)


def _features() -> bytes:
    from edge_train.formats.tensor_store import save_tensors

    draws = np.random.default_rng(7)
    tensors = {
        "features": draws.standard_normal((_ROWS, 5)).astype(np.float32),
        "sha256": draws.integers(0, 256, _ROWS * 32).astype(np.uint8),
    }
    samples = [[f"a/{n}.png", n % 2, n > 9, 1] for n in range(_ROWS)]
    about = {"samples": json.dumps(samples), "classes": '["a", "b"]', "key": "k"}
    with tempfile.TemporaryDirectory() as folder:
        save_tensors(Path(folder) / "t", tensors, about)
        return (Path(folder) / "t").read_bytes()


def _read_features(folder: Path, work: Path) -> None:
    from edge_train.tasks.images.features import open_features
    from edge_train.tasks.images.objective import standard_of

    found = open_features(folder / "features.safetensors")
    found.by_content()
    standard_of(found, np.arange(len(found.samples)))


class _Tokens:
    """Passages of two tokens each."""

    def __init__(self) -> None:
        draws = np.random.default_rng(8)
        vectors = draws.standard_normal((2 * _ROWS, 4)).astype(np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def tokens(self, first, last):
        return self._vectors[2 * first : 2 * last], np.arange(last - first + 1) * 2

    def runs(self):
        return iter([(0, _ROWS)])


def _index() -> Sample:
    from edge_train.arrays.projections import Folded
    from edge_train.tasks.retrieve.index import CODES, HEAD, write_index

    lines = [
        json.dumps({"name": f"{n}.md", "title": "", "text": f"text {n}"}).encode() + b"\n"
        for n in range(_ROWS)
    ]
    ends = np.cumsum([0, *map(len, lines)])
    with tempfile.TemporaryDirectory() as folder:
        write_index(
            Path(folder),
            _Tokens(),
            np.full(_ROWS, 2),
            np.arange(_ROWS, dtype=np.int32) // 2,
            ends,
            Folded("silu", np.eye(4, dtype=np.float32)),
            "1" * 64,
        )
        files = {**_files(Path(folder)), "passages.jsonl": b"".join(lines)}
    return Sample("kept/index", files, (HEAD, HEAD, CODES, "passages.jsonl"), _read_index)


def _read_index(folder: Path, work: Path) -> None:
    from edge_train.arrays.projections import project
    from edge_train.tasks.retrieve.finding import Index

    index = Index(folder, "passages.jsonl")
    query = project(index.head, np.ones((2, index.hidden), np.float32))
    for hit in index.search(query, 3):
        index.text(hit.passage)
    index.candidates(query, 4, 3)


def _collections() -> list[Sample]:
    from tiny_encoder import make_judged, make_notes

    with tempfile.TemporaryDirectory() as folder:
        judged = _files(make_judged(Path(folder) / "judged"))
        notes = _files(make_notes(Path(folder) / "notes", 3))
    return [
        Sample("search/judged", judged, tuple(judged), _read_collection),
        Sample("search/notes", notes, tuple(notes), _read_collection),
    ]


def _read_collection(folder: Path, work: Path) -> None:
    from edge_train.tasks.retrieve.bm25 import BM25
    from edge_train.tasks.retrieve.documents import Columns, read_collection
    from edge_train.tasks.retrieve.questions import asked_of

    found = read_collection(folder, Columns(None, None, None))
    for line in found.notices:
        line.encode()
    titles = {number: number for number, one in enumerate(found.documents) if one.title}
    asked_of(found, "auto", titles, len(found.documents))
    BM25([one.text for one in found.documents]).best("the bread", 3)
