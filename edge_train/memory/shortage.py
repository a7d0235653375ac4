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
    r"|STATUS_ALLOC_FAILED"  # cuBLAS and cuDNN, where a card has no room for their own
)
_ON_GPU = re.compile(r"CUDA.*out of memory|STATUS_ALLOC_FAILED")
# How torch and ONNX Runtime say that a card, its driver or a kernel failed; none is about memory.
_LOST = re.compile(
    r"CUDA (driver )?error: (?!out of memory)[^\n]*|cuDNN error: (?!\S*ALLOC_FAILED)[^\n]*"
    r"|CUDA error: (?!\S*ALLOC_FAILED)CUBLAS_[^\n]*|CUDA failure \d+: (?!out of memory)[^\n;]*"
    r"|No CUDA GPUs are available|Found no NVIDIA driver[^\n.]*"
)
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
    if is_on_gpu(error):  # what the host holds is beside the point
        return f"{more} did not fit on the GPU"
    return f"{more} did not fit beside {format_bytes(held_bytes)} in use"


def is_on_gpu(error: BaseException) -> bool:
    """Return whether it is a card that has no memory left.

    >>> is_on_gpu(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    True
    """
    return _ON_GPU.search(str(error)) is not None


def lost_card(error: BaseException | None) -> str:
    """Return why a card no longer computes, empty where an error is about something else.

    After any of these errors a process cannot use the card again; another one may.

    >>> lost_card(RuntimeError("CUDA error: unspecified launch failure\\nCUDA kernel errors might"))
    'CUDA error: unspecified launch failure'
    >>> lost_card(RuntimeError("CUDA error: out of memory")), lost_card(ValueError("shapes differ"))
    ('', '')
    """
    while error is not None:
        found = _LOST.search(str(error))
        if found is not None and not _SHORTAGE.search(found[0]):
            return found[0].strip()
        error = error.__cause__ or error.__context__
    return ""
