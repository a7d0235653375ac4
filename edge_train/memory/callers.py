"""Functions of the user's, called so that what they raise is told from what we raise."""

from collections.abc import Callable
from typing import Any

from edge_train.errors import CallersError
from edge_train.memory.shortage import is_shortage


def called(
    function: Callable[..., Any], *given: Any, whose: Callable[..., Any] | None = None
) -> Any:
    """Return what a function of the user's returns.

    Args:
      whose: function that is named where `function` is a library's, in which theirs is run.

    Raises:
      CallersError: it raised something, which is the cause; an allocation that failed is ours.
    """
    try:
        return function(*given)
    except Exception as error:
        if is_shortage(error):
            raise
        raise CallersError.of(whose or function, error) from error
