"""`edge-train bench forwards-photos`: `bench forwards` on photos of things, not painted clothes.

The model is one that learned from photos (`pretrain.py --recipe wide_photos`), and so are the
spaces; likeness is to photos of the thing that no token learned from.
"""

from pathlib import Path

from edge_train import bench
from edge_train.bench.forwards import FORWARDS, Trials, compared, ways_of
from edge_train.bench.photo_subjects import (
    SUBJECTS,
    PhotoSubjects,
    photo_spaces,
    read_others,
    read_subject,
)
from edge_train.errors import InputError


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    features: Path | None = None,
    limit: int = FORWARDS,
    samples: int = len(SUBJECTS),
) -> str:
    """Measure the ways of `bench forwards`'s headline on things; return Markdown tables.

    Args:
      out: where tokens and scores are kept.
      data: the folder of `dreambooth/` and `cifar10_subset_jpeg.npz`.
      model: a folder of `demos/tiny_sd/pretrain.py --recipe wide_photos`.
      features: a folder of feature networks; see `feature_spaces.spaces`.
      limit: forwards after which a curve ends.
      samples: how many of the things, in the order of `SUBJECTS`.

    Raises:
      InputError: a folder is missing, or was not named.
      TrainingStopped: a curve's process failed; what is done stays.
    """
    if data is None or model is None:
        raise InputError(
            "photos and a model of photos are needed: --data FOLDER with dreambooth and "
            "cifar10_subset_jpeg.npz, --model WORK/out/wide_photos."
        )
    out.mkdir(parents=True, exist_ok=True)
    others, names = read_others(data), list(SUBJECTS[:samples])
    photos = {name: read_subject(data, name) for name in SUBJECTS}
    subjects = PhotoSubjects(photos, others, photo_spaces(others, out, features), out)
    trials = Trials(out, subjects, model.name, str(model))
    curves = compared(trials, ways_of(model), names, seeds, limit)
    return "\n\n".join([_measure(subjects, names), *curves])


def _measure(subjects: PhotoSubjects, names: list[str]) -> str:
    """Return what photos of a thing score against its own kept ones, and those of others."""
    rows = []
    for name in names:
        row = [name]
        for space in subjects.spaces:
            own = subjects.between(space, name, name)
            others = [subjects.between(space, name, o) for o in subjects.photos if o != name]
            row.append(f"{own:.3f}, {min(others):.3f} to {max(others):.3f}")
        rows.append(row)
    heads = [f"{space.name}: its kept photos, those of others" for space in subjects.spaces]
    return bench.table(["cosine of photos learned from with", *heads], rows)
