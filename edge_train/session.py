"""Start a run, or go on with one: photos, folders, and what a crash may have damaged."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train import build, journal
from edge_train import recipe as recipes
from edge_train.errors import RunFolderError
from edge_train.recipe import Recipe
from edge_train.report import write_report
from edge_train.resume_rules import check_same_model
from edge_train.tasks.captions import file_name_of
from edge_train.tasks.personalize import PhotoCache
from edge_train.tensors import load_tensors, save_tensors, write_bytes
from edge_train.training import Observer, Session, train

_START_FILE = "start.safetensors"


def run(recipe: Recipe, observer: Observer) -> int:
    """Start a run; return the exit status.

    Raises:
      EdgeTrainError: the user must change something, or training stopped; see `exit_status`.
    """
    began = time.perf_counter()
    job = build.check(recipe)
    photos, texts = build.load_job_photos(job)
    folder = _new_folder(job.recipe)
    for note in job.notes:
        observer.said(note)
    for name, reason in photos.skipped:
        observer.said(f"skipped {name}: {reason}")
    write_bytes(folder / "recipe.toml", recipes.to_toml(_anywhere(job.recipe)).encode())
    observer.said(f"{len(photos.photos)} photos; encoding them once, then the VAE is released")
    cache = build.encode_photos(job, photos, texts)
    sha256 = job.model.sha256()
    save_tensors(folder / _START_FILE, cache.tensors(), {"model_sha256": sha256})
    return train(Session(folder, job, sha256, cache, photos, observer, began), [], None)


def resume(folder: Path, changes: Mapping[str, Any], observer: Observer) -> int:
    """Go on with a run from its last durable step; return the exit status.

    Args:
      changes: recipe keys that do not change what is computed (the caps).

    Raises:
      RunFolderError: there is nothing to resume, or it belongs to another model.
    """
    began = time.perf_counter()
    if not (folder / "recipe.toml").is_file():
        raise RunFolderError(
            f"{folder}: no recipe.toml; this is not a run folder. `edge-train run` starts one."
        )
    recipe = replace(recipes.read(folder / "recipe.toml"), **changes, out=str(folder))
    path = folder / "journal.jsonl"
    records, intact = journal.read(path) if path.exists() else ([], 0)
    if path.exists() and path.stat().st_size > intact:
        copy = folder / "journal.damaged.jsonl"
        write_bytes(copy, path.read_bytes())
        observer.said(
            f"{path.name}: line {len(records) + 1} is torn or damaged; going on from the intact "
            f"records before it (the whole file is kept as {copy.name})"
        )
    if not records:
        observer.said("nothing was trained yet; starting from step 0")
        path.unlink(missing_ok=True)
        return run(recipe, observer)
    job = build.check(recipe)
    sha256 = job.model.sha256()
    check_same_model(folder, records[0]["facts"], job.recipe.runtime, job.recipe.model, sha256)
    if records[-1]["kind"] == "end" and records[-1]["status"] == "done":
        observer.said(f"{folder}: this run is finished; its report was made again")
        write_report(folder)
        return 0
    cache = _stored_cache(folder, job, observer)
    return train(Session(folder, job, sha256, cache, None, observer, began), records, intact)


def _stored_cache(folder: Path, job: build.Job, observer: Observer) -> PhotoCache:
    """Return the photos' cache of a run; made again from the photos where it is damaged."""
    try:
        tensors, _ = load_tensors(folder / _START_FILE)
        return PhotoCache.from_tensors(tensors)
    except (RunFolderError, KeyError) as error:
        observer.said(f"{error} Encoding the photos again.")
    photos, texts = build.load_job_photos(job)
    return build.encode_photos(job, photos, texts)


def _anywhere(recipe: Recipe) -> Recipe:
    """Return a recipe whose folders can be found from every working directory."""
    photos = recipe.photos and str(Path(recipe.photos).expanduser().resolve())
    model = Path(recipe.model).expanduser()
    return replace(
        recipe, photos=photos, model=str(model.resolve()) if model.is_dir() else recipe.model
    )


def _new_folder(recipe: Recipe) -> Path:
    """Return the run folder, made empty: `--out`, or the next free `runs/<token>[-n]`.

    Raises:
      RunFolderError: it exists and holds a run, or cannot be made.
    """
    if recipe.out is not None:
        folder = Path(recipe.out).expanduser()
        journal_file = folder / "journal.jsonl"
        if journal_file.exists() and journal_file.stat().st_size > 0:
            raise RunFolderError(
                f"{folder} holds a run already; go on with `edge-train run --resume {folder}` or "
                "name another --out."
            )
    else:
        base = Path("runs") / file_name_of(str(recipe.token))
        number = 1
        folder = base
        while folder.exists():
            number += 1
            folder = base.with_name(f"{base.name}-{number}")
    try:
        for part in (folder, folder / "samples", folder / "checkpoints"):
            part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made ({error.strerror}).") from error
    return folder
