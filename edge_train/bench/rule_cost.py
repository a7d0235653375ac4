"""What a step costs by each update rule: processor seconds, the rules in turn in one process."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_train.bench.step_cost import open_loop
from edge_train.run.scratch import BENCH, scratch
from edge_train.tasks.language_model.job import LanguageModelJob
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

ROUNDS, REFRESH = 10, 5
_CHARACTERS = 200_000  # of the text: every run reads it anew, and some steps need no more


def step_seconds(
    model: Path,
    data: Path,
    sequences: tuple[int, int],
    runs: Mapping[str, Sequence[str]],
    dtype: str,
) -> dict[str, list[float]]:
    """Return the seconds of some steps of every run, after one that nobody counts.

    Processor time, since a machine may do other things; in turn, so that all meet it as it is.

    Args:
      sequences: of a step, and tokens in one.
      dtype: of products with weights.
      runs: name -> options of the command line: method, rank, scale, quant.
    """
    samples, length = sequences
    steps = {}
    with scratch(prefix=BENCH) as folder:
        text = folder / "text.txt"
        with data.open(encoding="utf-8") as file:
            text.write_text(file.read(_CHARACTERS), encoding="utf-8")
        for name, options in runs.items():
            given = dict(zip(options[::2], options[1::2], strict=True))
            rank, scale = given.get("--rank"), given.get("--scale")
            recipe = LanguageModelRecipe(
                model=str(model),
                data=str(text),
                method=given["--method"],
                quant=given.get("--quant", "none"),
                rank=int(rank) if rank else None,
                scale=float(scale) if scale else None,
                refresh_every=REFRESH if rank and given["--method"] != "dct-adamw" else None,
                length=length,
                samples=samples,
                threads=1,
                learning_rate=1e-3,
                dtype=dtype,
            )
            job = LanguageModelJob(recipe)
            job.prepare(folder, lambda text: None)
            steps[name] = open_loop(job, folder).step
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(1 + ROUNDS):
            for name, step in steps.items():
                began = time.process_time()
                step(number)
                if number:
                    seconds[name].append(time.process_time() - began)
    return seconds
