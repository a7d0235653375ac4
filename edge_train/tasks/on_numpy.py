"""What tasks that run on NumPy alone refuse: another device, and a number of threads."""

from edge_train.errors import InputError
from edge_train.recipe import Recipe


def check_on_numpy(recipe: Recipe) -> None:
    """Refuse words that NumPy cannot follow.

    Raises:
      InputError: as described.
    """
    if recipe.device not in ("auto", "cpu"):
        raise InputError(
            f"task {recipe.task!r} runs on the cpu, not on device {recipe.device!r}; leave it out."
        )
    if recipe.threads is not None:
        raise InputError(
            "threads: NumPy takes its number of threads from the environment variable "
            "OPENBLAS_NUM_THREADS (or OMP_NUM_THREADS); set that and leave threads out."
        )
