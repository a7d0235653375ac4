"""Pictures from a finished (or interrupted) run with the word or LoRA that it learned."""

from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.diffusion_adapter import DIFFUSERS_FILE
from edge_train.memory.machine import cores
from edge_train.records.folder import RunFolder
from edge_train.records.history import read_records
from edge_train.records.resume import threads_of
from edge_train.tasks import read_recipe
from edge_train.tasks.personalize import captions, parts
from edge_train.tasks.personalize.adapting import LORA_FOLDER, blocks_in
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.pictures import contact_sheet, draw, png, save_pictures
from edge_train.tasks.personalize.recipe import PersonalizeRecipe


def generate(
    run: Path,
    prompts: list[str] | None,
    *,
    count: int,
    seed: int,
    steps: int,
    guidance: float | None,
    out: Path | None,
) -> list[Path]:
    """Write `count` pictures per prompt and a contact sheet; return their paths.

    Args:
      prompts: `{}` or the token's spelling marks the learned thing; None: the run's previews.
      steps: denoiser steps.

    Raises:
      RunFolderError: no run there, or none that has learned anything.
      InputError: a prompt without the token, or too long for the model.
    """
    if count < 1:
        raise InputError(f"--count is {count}, must be at least 1.")
    if not RunFolder(run).recipe.is_file():
        raise RunFolderError(RunFolder(run).no_run())
    RunFolder(run).check_kinds()
    recipe = read_recipe(RunFolder(run).recipe)
    if not isinstance(recipe, PersonalizeRecipe):
        raise RunFolderError(f"{run}: a run of task {recipe.task!r} has no pictures to draw.")
    # what it began from may be gone, and so may the card that it was trained on
    recipe = replace(recipe, preview_steps=steps, start=None, device="auto")
    if find_spec("torch") is None and not recipe.adapts:  # the embedded model is an artifact, too
        recipe = replace(recipe, runtime="auto", quant="auto", dtype="auto", lean=False)
        recipe = replace(recipe, method="zo", until_noise=None, clip=None)
    if guidance is not None:
        recipe = replace(recipe, guidance=guidance)
    if recipe.threads is None:  # it was measured how many pay for this model
        with suppress(RunFolderError):
            known = threads_of(read_records(run)[0]).chosen
            recipe = replace(recipe, threads=None if known is None else min(known, cores()))
    job = parts.check(recipe)
    point = _learned(run, job)
    wanted = [parts.prompt_of(job.recipe, p) for p in prompts] if prompts else list(recipe.prompts)
    ids = {
        name: np.concatenate([job.ids(text)[name] for text in (*wanted, "")])
        for name in job.tokenizers
    }
    runtime = parts.open_runtime(job, Parameters(point), ids)
    every = [text for text in wanted for _ in range(count)]
    pictures = draw(job, runtime, point, every, seed=seed)
    runtime.close()
    folder = out or run / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    names = map(Path, save_pictures(folder, "picture", pictures))
    paths = [folder / name.name for name in names]  # `folder` may be "."
    sheet = folder / "sheet.png"
    write_bytes(sheet, png(contact_sheet(pictures, columns=count)))
    return [*paths, sheet]


def _learned(run: Path, job: TokenJob) -> dict[str, Array]:
    """Return what a run learned: the vectors of a word, or the matrices of a LoRA.

    Raises:
      RunFolderError: it has not learned it yet, or what is there is of another model.
    """
    if job.adapter is not None:
        if not (run / LORA_FOLDER / DIFFUSERS_FILE).is_file():
            raise RunFolderError(
                f"{run}: holds no {LORA_FOLDER}/{DIFFUSERS_FILE} yet. The run has to learn it "
                f"first: `edge-train run --resume {run}`."
            )
        return blocks_in(run / LORA_FOLDER, job.adapter)
    token = str(job.recipe.token)
    path = run / f"{captions.file_name_of(token)}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error}). The run has to learn the token first: "
            f"`edge-train run --resume {run}`."
        ) from error
    names = {token: "token", "clip_l": "token", "clip_g": "token_2"}
    point = {names[key]: value for key, value in tensors.items() if key in names}
    if {name: block.shape for name, block in point.items()} != {
        name: block.shape for name, block in job.start.items()
    }:
        raise RunFolderError(f"{path}: its vectors do not fit model {job.recipe.model}.")
    return point
