"""The recipe of a run folder: read, or made again from the journal where it cannot be read."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edge_train.errors import InputError, RunFolderError
from edge_train.formats.atomic import write_bytes
from edge_train.memory.link import Link
from edge_train.recipe import Recipe, to_toml
from edge_train.records.folder import RunFolder
from edge_train.records.history import Record
from edge_train.records.resume import recipe_in
from edge_train.tasks import read_recipe, recipe_of


def recipe_in_folder(
    folder: Path, records: Sequence[Record], link: Link, say: Callable[[str], None]
) -> Recipe:
    """Return the recipe of a run that goes on; one that cannot be read is made again.

    The file is kept beside. Runs of earlier versions did not record all of theirs.

    Args:
      records: the journal, empty where nothing began.

    Raises:
      InputError: it cannot be read, nor made again.
      RunFolderError: it was made again and has a cap, which whoever started this process could
        not know.
    """
    path = RunFolder(folder).recipe
    try:
        return read_recipe(path)
    except InputError as error:
        if (values := recipe_in(records)) is None:
            raise
        try:
            recipe = recipe_of(values, str(path))
        except InputError:  # of a later version, or of a package that is gone: not damaged
            raise error from None
        reason = str(error).splitlines()[0]
    kept = ""
    with suppress(OSError):  # there is none, or what is in the way is said by the next line
        os.replace(path, RunFolder(folder).damaged_recipe)
        kept = f" (the old one is kept as {RunFolder(folder).damaged_recipe.name})"
    write_bytes(path, to_toml(recipe).encode())
    again = f"{reason.rstrip('.')}; made again from the journal{kept}"
    if link.supervisor is None and (recipe.cap_bytes or recipe.host_cap_bytes):
        raise RunFolderError(
            f"{again}. It has a cap, so start again: `edge-train run --resume {folder}`."
        )
    say(again)
    return recipe
