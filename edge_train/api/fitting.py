"""`fit`: somebody's own module and loss, trained by any method that the registries know.

The step is that of `loop.py`, and the run is like any other: planned, guarded, journalled,
resumable, reported. Only where it trains differs: in the process of the caller, whose module it
changes.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train.api import running
from edge_train.api.observing import Both, Events
from edge_train.api.running import Run, reserved
from edge_train.api.said import Said
from edge_train.errors import INTERRUPTED, CallersError, EdgeTrainError, InputError
from edge_train.memory.measure import measure
from edge_train.memory.plan import estimate, needs
from edge_train.methods import declared_keys
from edge_train.recipe import from_mapping
from edge_train.records.folder import RunFolder
from edge_train.run import session
from edge_train.run.observer import Bar
from edge_train.tasks import open_job, read_recipe
from edge_train.tasks.module.brought import Batches, Brought, lent
from edge_train.tasks.module.recipe import ModuleRecipe
from edge_train.units import shown


def fit(
    module: Any,
    loss: Callable[[Any, Any], Any] | None = None,
    batches: Batches | None = None,
    *,
    evaluation: Sequence[Any] | None = None,
    method: str | None = None,
    mem: str | int | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    **keys: Any,
) -> Run:
    """Train a `torch.nn.Module` by its own loss, here, and return the run when it is over.

    The module is left with the parameters where the evaluation was lowest. It trains in this
    process, under the guard of the run alone: no wall stands, and the run says so. Ctrl-C stops it
    with everything saved.

    Args:
      module: float32, on the CPU; or "package:function" of a function without arguments that
        returns (module, loss, batches) or these and evaluation batches: that is trained in a walled
        process of its own, and `fit` returns at once, as `run` does.
      loss: of the module and a batch; a scalar tensor, the mean over the batch.
      batches: a list, taken in order and again from its start, or a function of the step.
      evaluation: batches whose loss says how good the parameters are; None: the first four.
      method: any name of `--method` that needs gradients or losses; None: adamw.
      mem: most memory that this process may hold, "2GB" or bytes.
      steps: most steps; None: 500.
      out: run folder to make; None: a free `runs/module-n`.
      resume: folder of a run of this module to go on with; `steps` may then be more.
      keys: other keys of the recipe, such as learning_rate, seed, rank, queries.

    Raises:
      InputError: something cannot be used, or the plan does not fit; nothing was started.
      TrainingStopped: it stopped early; `resume` goes on with it.
      Exception: what the loss raised, itself; the steps before are saved.
    """
    given = {
        **keys,
        "method": method,
        "cap_bytes": mem,
        "steps": steps,
        "out": None if out is None else str(out),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(module, str):
        if loss is not None or batches is not None or evaluation is not None:
            raise InputError("module names a function, which returns loss and batches, too.")
        if resume is not None:
            raise InputError("a run of a named function goes on by et.resume(FOLDER, module=...).")
        return running.run(_recipe({**given, "module": module}))
    if loss is None or batches is None:
        raise InputError("fit needs a loss and batches beside the module.")
    brought = Brought(module, loss, batches, evaluation)
    with lent(brought):
        return _resumed(Path(resume), given) if resume is not None else _begun(given)


def _recipe(given: dict[str, Any]) -> ModuleRecipe:
    return from_mapping(ModuleRecipe, given, "fit", own=declared_keys())


def _begun(given: dict[str, Any]) -> Run:
    recipe = _recipe(given)
    _check(recipe)
    folder, is_new = reserved(recipe)
    said = Said()
    observer = Both(Bar(), Events(said))
    try:
        _train(lambda: session.run(replace(recipe, out=str(folder)), observer), folder)
    finally:
        if is_new:
            with suppress(OSError):  # it holds a run
                folder.rmdir()
    return Run(folder, said, None)


def _resumed(folder: Path, given: dict[str, Any]) -> Run:
    """Go on with a run; keys that are given must be those that it began with.

    Raises:
      InputError: one is not, or the folder is of another task.
    """
    changes: dict[str, Any] = {
        name: given[name] for name in ("cap_bytes", "steps") if name in given
    }
    path = RunFolder(folder).recipe
    if path.is_file():
        stored, now = read_recipe(path), _recipe(given)
        if not isinstance(stored, ModuleRecipe) or stored.module is not None:
            named = getattr(stored, "module", None)
            module = f", module={named!r}" if named else ""
            raise InputError(f"{folder}: this run goes on by et.resume({str(folder)!r}{module}).")
        for name in given.keys() - changes.keys() - {"out"}:
            old, new = getattr(stored, name, None), getattr(now, name, None)
            if old != new:
                raise InputError(
                    f"{name} is {shown(new)} here, the run in {folder} began with {shown(old)}; "
                    "leave it out."
                )
        if changes.get("steps") == stored.steps:
            del changes["steps"]
        keys = ModuleRecipe.declared()
        changes = {name: keys[name].checked(value, "") for name, value in changes.items()}
    said = Said()
    observer = Both(Bar(), Events(said))
    _train(lambda: session.resume(folder, changes, observer), folder)
    return Run(folder, said, None)


def _check(recipe: ModuleRecipe) -> None:
    """Refuse what the plan says does not fit, before anything is made.

    Raises:
      InputError: it does not fit, or cannot be trained.
    """
    job = open_job(recipe)
    plan = estimate(job.footprint(), measure().resident_bytes)
    if recipe.cap_bytes is not None and plan.peak_bytes > recipe.cap_bytes:
        raise InputError(
            f"{needs(plan, recipe.cap_bytes)} Activations are not in it. Give it a "
            "larger mem, or method='zo', which keeps no gradients and activations."
        )


def _train(work: Callable[[], int], folder: Path) -> None:
    """Do a run in this process; what the caller's own code raised is raised as it was.

    Raises:
      KeyboardInterrupt: it was told to stop, and did.
    """
    with suppress(OSError):  # what this program held before is no peak of the run
        Path("/proc/self/clear_refs").write_text("5")
    try:
        status = work()
    except EdgeTrainError as error:
        command = f"`edge-train run --resume {folder}`"
        words = str(error).replace(command, f"et.fit(..., resume={str(folder)!r})")
        theirs = _callers(error)
        if theirs is None:
            raise type(error)(words) from error
        if hasattr(theirs, "add_note"):  # Python 3.11
            theirs.add_note(f"edge-train: {words}")
        raise theirs from None
    if status == INTERRUPTED:
        raise KeyboardInterrupt(f"stopped with everything saved; go on with resume={str(folder)!r}")


def _callers(error: BaseException | None) -> BaseException | None:
    """Return the exception of the caller's code that an error came from; None: of none."""
    while error is not None:
        if isinstance(error, CallersError):
            return error.__cause__
        error = error.__cause__
    return None
