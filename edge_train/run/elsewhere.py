"""What to type for another engine, told before the one that was asked for may run out of memory."""

from edge_train.memory.footprint import has_room
from edge_train.memory.link import Link
from edge_train.memory.measure import measure
from edge_train.recipe import Recipe
from edge_train.run.survey import by_engine, on_another_engine
from edge_train.tasks import task_of
from edge_train.tasks.job import Job


def tell_elsewhere(job: Job, recipe: Recipe, link: Link, before_bytes: int, *, last: bool) -> None:
    """Let the supervisor know of an engine that has room, where this one may have none.

    That is in the last way to run it, or where not even its libraries fit. To look takes another
    job, so not where the cap is too small for a second one.

    Args:
      recipe: as it was asked for.
      before_bytes: held before the job was opened.
      last: nothing is left to give up.
    """
    if link.supervisor is None or link.plan is not None or recipe.cap_bytes is None:
        return
    use = task_of(recipe).use(job.recipe.runtime)
    if not last and has_room(recipe.cap_bytes, use.libraries_bytes):
        return
    held_bytes = measure(link.supervisor).resident_bytes
    another_bytes = 2 * (held_bytes - before_bytes)  # twice: what it holds while it is opened
    if held_bytes + another_bytes <= recipe.cap_bytes:
        found = on_another_engine(recipe, job.recipe)
        link.tell(instead="" if found is None else by_engine(found))
