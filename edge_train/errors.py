"""The errors a user can fix: one sentence each, no traceback, a known exit status."""

NOT_STARTED = 2
STOPPED = 3
INTERRUPTED = 130


class EdgeTrainError(Exception):
    """Something the user must change; nothing was started (exit status 2).

    The message names the value found, the value expected and the next thing to type.
    """

    exit_status = NOT_STARTED


class InputError(EdgeTrainError):
    """A photo, caption, word, option or recipe that cannot be used."""


class ModelError(EdgeTrainError):
    """A model folder that is missing, damaged, unsafe or of an unknown kind."""


class RunFolderError(EdgeTrainError):
    """A run folder that cannot be written, resumed or read."""


class TrainingStopped(EdgeTrainError):
    """Training began and stopped early; the run folder can be resumed (exit status 3)."""

    exit_status = STOPPED


class OutOfMemory(TrainingStopped):
    """An allocation failed under the cap; the journal holds every step taken before.

    `least_bytes` is the smallest cap that could have been enough, None where nobody can tell.
    """

    def __init__(self, message: str, least_bytes: int | None = None) -> None:
        super().__init__(message)
        self.least_bytes = least_bytes


class NonFinite(ArithmeticError):
    """A gradient or an update is NaN or infinite; the loop rolls back to the last good step."""
