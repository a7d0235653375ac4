"""Start a run, or go on with one: its folder, and what a crash may have damaged."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train import journal
from edge_train import recipe as recipes
from edge_train.errors import RunFolderError
from edge_train.jobs import open_job
from edge_train.jobs.protocol import Job
from edge_train.recipe import Recipe
from edge_train.report import write_report
from edge_train.tensors import write_bytes
from edge_train.training import Observer, Session, train


def run(recipe: Recipe, observer: Observer) -> int:
    """Start a run; return the exit status.

    Raises:
      EdgeTrainError: the user must change something, or training stopped; see `exit_status`.
    """
    began = time.perf_counter()
    job = open_job(recipe)
    job.load()
    folder = _new_folder(job)
    for note in job.notes:
        observer.said(note)
    write_bytes(folder / "recipe.toml", recipes.to_toml(recipes.anywhere(job.recipe)).encode())
    job.prepare(folder, observer.said)
    return train(Session(folder, job, observer, began), [], None)


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
    job = open_job(recipe)
    sha256, began_with = job.model_sha256, records[0]["facts"]["model_sha256"]
    if sha256 != began_with:
        raise RunFolderError(
            f"{folder}: this run began with model sha256 {began_with[:12]}..., {recipe.model} now "
            f"has {sha256[:12]}...; put that model back, or start a new run."
        )
    if records[-1]["kind"] == "end" and records[-1]["status"] == "done":
        observer.said(f"{folder}: this run is finished; its report was made again")
        write_report(folder)
        return 0
    job.restore(folder, observer.said)
    return train(Session(folder, job, observer, began), records, intact)


def _new_folder(job: Job) -> Path:
    """Return the run folder, made empty: `--out`, or the next free `runs/<name>[-n]`.

    Raises:
      RunFolderError: it exists and holds a run, or cannot be made.
    """
    if job.recipe.out is not None:
        folder = Path(job.recipe.out).expanduser()
        journal_file = folder / "journal.jsonl"
        if journal_file.exists() and journal_file.stat().st_size > 0:
            raise RunFolderError(
                f"{folder} holds a run already; go on with `edge-train run --resume {folder}` or "
                "name another --out."
            )
    else:
        base = Path("runs") / job.name
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
