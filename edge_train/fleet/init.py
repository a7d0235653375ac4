"""`edge-train fleet init`: a recipe becomes an app that Flower runs."""

import json
from pathlib import Path

from edge_train.errors import EdgeTrainError, InputError
from edge_train.fleet.identity import PRIVATE
from edge_train.fleet.wire import MEASURED, TAG_BYTES, Answer
from edge_train.formats.atomic import write_bytes
from edge_train.methods import methods
from edge_train.recipe import Recipe, read_toml, to_toml
from edge_train.tasks import open_job, recipe_of, tasks
from edge_train.units import format_bytes

PACKAGE = "fleet_app"
_KEPT = ("model", "start")  # of the private keys: what a device does not name itself
_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = {name}
version = "1.0.0"
description = "A fleet of edge-train"
license = "Apache-2.0"
dependencies = ["flwr>=1.42.0"]  # edge-train is installed on every device beforehand

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "edge-train"

[tool.flwr.app.components]
serverapp = "{package}.server_app:app"
clientapp = "{package}.client_app:app"

[tool.flwr.app.config]
exchange = {exchange}  # slopes, or adapters: changes of trained weights after steps alone
folder = {folder}  # of the server's journal: a new `flwr run` goes on from it
quorum = 2  # devices that make a round
deadline = 120.0  # seconds for the answers of a round
average = "mean"  # mean, trimmed or median
trim = 0.2  # share of the devices that `trimmed` leaves out at each end
mixed = false  # true: devices of other engines and quantisations take part
clip = 0.0  # with noise: the longest slopes of a step that leave a device
noise = 0.0  # deviation of the noise on them, in units of clip
idle = 600.0  # seconds without a message after which a device's training process ends
"""
_MODULE = """\
from edge_train.fleet.flower import {side}_app
app = {side}_app(__file__)
"""


def init(recipe: Path, out: Path, exchange: str = "slopes") -> str:
    """Write the app of a recipe into a new folder; return what to type next.

    Args:
      exchange: "slopes" or "adapters".

    Raises:
      InputError: the recipe cannot be trained by a fleet, or the folder exists.
    """
    found = recipe_of(read_toml(recipe), str(recipe))
    if exchange == "slopes":
        check(found, recipe)
    else:
        check_local(found, recipe)
    if out.exists():
        raise InputError(f"{out} exists already; remove it, or name another folder.")
    out, package = out.absolute(), out.absolute() / PACKAGE
    journal = out.with_name(f"{out.name}-server")
    try:
        package.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}).") from error
    written = read_toml(recipe)
    shared = {n: v for n, v in written.items() if n not in PRIVATE or n in _KEPT}
    for other in ("mem", "host_mem", "cap", "host_cap"):
        shared.pop(other, None)
    text = _PYPROJECT.format(
        name=json.dumps(_name(out.name)),
        package=PACKAGE,
        exchange=json.dumps(exchange),
        folder=json.dumps(str(journal)),
    )
    write_bytes(out / "pyproject.toml", text.encode())
    write_bytes(package / "recipe.toml", to_toml(recipe_of(shared, str(recipe))).encode())
    write_bytes(package / "__init__.py", b"")
    for side in ("server", "client"):
        write_bytes(package / f"{side}_app.py", _MODULE.format(side=side).encode())
    return (
        f"{out}: a Flower app of task {found.task}; with a SuperLink and its SuperNodes running, "
        f"`flwr run {out}` trains it. {_bytes(found, exchange)} docs/fleet.md has every command."
    )


def _bytes(recipe: Recipe, exchange: str) -> str:
    """Return how much a device sends in a round, for people."""
    if exchange == "slopes":
        size = len(Answer(MEASURED, bytes(TAG_BYTES), 0, (0.0,)).encode())
        return f"A step is a round: {size} bytes from each device, and 8 for each slope."
    each = (
        "after every evaluate_every steps each device sends a byte for each trained weight and 4 "
    )
    try:
        job = open_job(recipe)
        job.load()
        trained = job.footprint().trained
    except EdgeTrainError:
        return f"A round: {each}a row; name data and model in the recipe to see how many."
    return f"A round: {each}a row, here more than {format_bytes(trained)} for {trained} weights."


def check_local(recipe: Recipe, source: Path) -> None:
    """Refuse a recipe that a fleet cannot train by weights.

    Raises:
      InputError: in a sentence.
    """
    if recipe.method == "auto":
        raise InputError(
            f"{source}: method 'auto' may come to mean another one on each device; name it, such "
            "as method = 'adamw'."
        )
    if not recipe.evaluate_every:
        raise InputError(
            f"{source}: with adapters a fleet needs evaluate_every, the steps that each device "
            "takes alone before weights are exchanged."
        )
    if recipe.patience:
        raise InputError(
            f"{source}: patience is {recipe.patience}; with adapters all devices take all steps, "
            "set patience = 0 or leave it out."
        )
    _check_alike(recipe, source)


def check(recipe: Recipe, source: Path) -> None:
    """Refuse a recipe that a fleet cannot train by slopes.

    Raises:
      InputError: in a sentence.
    """
    method = methods.get(recipe.method) if recipe.method != "auto" else None
    if method is None or not method.perturbs:
        able = ", ".join(one.name for one in methods.all().values() if one.perturbs)
        raise InputError(
            f"{source}: method {recipe.method!r} is not for a fleet, whose steps are rebuilt from "
            f"a few numbers; write method = {able!r}, or exchange weights: --exchange adapters."
        )
    for name in ("batch_selection", "block_schedule", "clip"):
        if getattr(recipe, name, None):
            raise InputError(f"{source}: {name} is of one machine; leave it out of a fleet.")
    _check_alike(recipe, source)


def _check_alike(recipe: Recipe, source: Path) -> None:
    if recipe.time_seconds is not None:
        raise InputError(
            f"{source}: time is of one machine, and all devices take the same steps; leave it out "
            "of a fleet."
        )
    if why := tasks.get(recipe.task).together(recipe):
        raise InputError(f"{source}: {why}.")


def _name(text: str) -> str:
    """Return a name that a package can have.

    >>> _name("My fleet!")
    'my-fleet'
    """
    words = "".join(one if one.isascii() and one.isalnum() else " " for one in text.lower())
    return "-".join(words.split()) or "fleet"
