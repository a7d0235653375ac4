"""An open file that a worker hands to its supervisor, beside the words that it tells.

What the kernel ties to an open file, such as a lock, then lasts as long as either process has it.
Not the module `socket`, which would add a megabyte to the parent; this one adds a third of one.
Standard library only.
"""

from __future__ import annotations

import _socket
import os
import sys

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Iterator

_ITEM_BYTES = 4  # of a descriptor
_MOST_BYTES = 65_536  # of one message


def pair() -> tuple[int, int]:
    """Return the two ends of a line between processes, as descriptors."""
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    return near.detach(), far.detach()


def hand_over(line: int, file: int) -> None:
    """Send an open file, with an empty line of words.

    Raises:
      OSError: nobody is there to take it.
    """
    end = _socket.socket(fileno=line)
    try:
        words = file.to_bytes(_ITEM_BYTES, sys.byteorder)
        end.sendmsg([b"\n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, words)])
    finally:
        end.detach()


def receive(line: int) -> Iterator[tuple[bytes, list[int]]]:
    """Yield what has arrived, and the open files that came with it; never wait for more."""
    end = _socket.socket(fileno=line)
    try:
        while True:
            room = _socket.CMSG_SPACE(_ITEM_BYTES)
            text, extra, *_ = end.recvmsg(_MOST_BYTES, room, _socket.MSG_DONTWAIT)
            files = [int.from_bytes(words[:_ITEM_BYTES], sys.byteorder) for *_, words in extra]
            for file in files:
                os.set_inheritable(file, False)
            if not text:
                return
            yield text, files
    except BlockingIOError:
        return
    finally:
        end.detach()
