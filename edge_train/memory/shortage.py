"""How engines say that an allocation failed, and what did not fit."""

import errno
import re

from edge_train.units import format_bytes

# How the engines say that an allocation failed; their errors share no class.
_SHORTAGE = re.compile(
    r"bad_alloc|can't allocate memory|[Cc]annot allocate memory|[Uu]nable to allocate"
    r"|[Ff]ailed to allocate|not enough memory|[Oo]ut of memory|can't start new thread"
    r"|failed to map segment|could not (create|execute) a (primitive|memory)"
    r"|(error return|returned NULL) without (exception set|setting an exception)"  # Python lost it
    r"|codec configuration error"  # Pillow, where zlib found no room for its tables
)
_ON_GPU = "CUDA out of memory"
_ASKED = re.compile(r"(?:allocate|buffer of size|size:) (\d+(?:\.\d+)?) ?([KMG]iB)?")


def is_shortage(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that an allocation failed.

    >>> is_shortage(MemoryError()), is_shortage(RuntimeError("std::bad_alloc"))
    (True, True)
    >>> is_shortage(OSError("codec configuration error when writing image file"))
    True
    >>> is_shortage(SystemError("error return without exception set"))
    True
    >>> is_shortage(RuntimeError("shapes differ"))
    False
    """
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if _SHORTAGE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def bytes_asked(error: BaseException) -> int:
    """Return how many bytes an allocation that failed asked for, 0 where the error does not say.

    >>> bytes_asked(RuntimeError("you tried to allocate 4096 bytes. Error code 12"))
    4096
    >>> bytes_asked(MemoryError("Unable to allocate 1.50 MiB for an array"))
    1572864
    """
    match = _ASKED.search(str(error))
    if match is None:
        return 0
    return int(float(match[1]) * 2 ** (10 * " KMG".index((match[2] or " ")[0])))


def shortage(error: BaseException, held_bytes: int) -> str:
    """Return what did not fit, as part of a sentence.

    >>> shortage(RuntimeError("you tried to allocate 45600000 bytes"), 300_000_000)
    '45.6 MB more did not fit beside 300 MB in use'
    >>> shortage(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), 9**9)
    '2.15 GB more did not fit on the GPU'
    """
    asked = bytes_asked(error)
    more = f"{format_bytes(asked)} more" if asked else "an allocation"
    if _ON_GPU in str(error):  # what the host holds is beside the point
        return f"{more} did not fit on the GPU"
    return f"{more} did not fit beside {format_bytes(held_bytes)} in use"
