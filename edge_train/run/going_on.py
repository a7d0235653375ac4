"""`--go-on`: a run begins, or goes on where it is: one command for whatever starts it again."""

from pathlib import Path
from typing import Any

from edge_train.errors import InputError, RunFolderError
from edge_train.recipe import Recipe, read_toml, set_keys, with_absolute_paths
from edge_train.records.folder import RunFolder
from edge_train.run.own_code import named_code
from edge_train.tasks import recipe_of
from edge_train.units import shown

_MAY_CHANGE = ("cap_bytes", "host_cap_bytes", "time_seconds", "when")
# with every file: what makes it another run
_TRAINED = ("method", "samples", "seed", "network", "trainable", "token")


def going_on(run: Path, asked: Recipe) -> dict[str, Any]:
    """Return what may change of a run that goes on as a recipe asks.

    Caps, time and hours are those of the recipe, and its steps where they are more; all other keys
    are those that the run began with, which has filled in defaults and may have rounded a length
    since.

    Raises:
      RunFolderError: it trains something else, by its task, files, method, batch size or seed, or
        by its network, token or what of a model is trained.
    """
    words = with_absolute_paths(asked)
    try:
        kept = recipe_of(read_toml(RunFolder(run).recipe), str(RunFolder(run).recipe))
    except InputError:
        kept = words  # a file that cannot be read is made again from the journal, or refused
    if kept.task != words.task:
        raise RunFolderError(
            f"{run} holds a run of task {kept.task!r}, not of {words.task!r}; name another --out."
        )
    files = [name for name, key in words.declared().items() if key.is_path]
    for name in set_keys(words):
        value, began = getattr(words, name), getattr(kept, name)
        if name in (*_TRAINED, *files, "model") and value not in ("auto", began):
            raise RunFolderError(
                f"{run} holds a run that began with {name} = {shown(began)}, not {shown(value)}; "
                "go on with that value, or name another --out."
            )
    changes = {name: getattr(words, name) for name in _MAY_CHANGE}
    if "steps" in set_keys(words) and kept.steps and (words.steps or 0) > kept.steps:
        changes["steps"] = words.steps
    return {**{n: v for n, v in changes.items() if v is not None}, **named_code(words)}
