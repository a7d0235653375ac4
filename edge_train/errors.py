"""The errors a user can fix: one sentence each, no traceback, a known exit status."""

NOT_STARTED = 2
STOPPED = 3
INTERRUPTED = 130
UNREAD = 141  # as a shell says of a program whose reader is gone: 128 and the signal PIPE
_MOST_CHARACTERS = 1000  # of a line of a message


class EdgeTrainError(Exception):
    """Something the user must change; nothing was started (exit status 2).

    The message names the value found, the value expected and the next thing to type.
    """

    exit_status = NOT_STARTED

    def __str__(self) -> str:
        """Return the message as it can be shown, whatever the file holds that it is about."""
        return "\n".join(map(_shown, super().__str__().split("\n")))


def _shown(line: str) -> str:
    """Return a line without controls, and without its middle where that would fill the screen."""
    if not line.isprintable():
        line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)
    if len(line) > _MOST_CHARACTERS:
        half = _MOST_CHARACTERS // 2
        line = f"{line[:half]} [...] {line[-half:]}"
    return line


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


MISSED = "the fleet took it without this device"


class Missed(Exception):
    """A step or evaluation that a fleet took without this run; it is skipped, not rolled back."""


class TemplateError(Exception):
    """A chat template cannot write a chat: the message goes on after "its chat template"."""


class CallersError(EdgeTrainError):
    """An exception of code that the user brought, such as a loss; `__cause__` is it."""

    @classmethod
    def of(cls, function: object, error: Exception) -> "CallersError":
        """Return the sentence about an exception: whose, what it says, which line raised it."""
        name = getattr(function, "__qualname__", type(function).__name__)
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        where = f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})" if last else ""
        return cls(f"{name} raised {type(error).__name__}: {error}{where}.")
