"""How messages reach the training process of a device: a socket of its folder, or a file."""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_train.errors import InputError, RunFolderError
from edge_train.fleet.book import entries_in, message_of
from edge_train.fleet.rounds import NONE
from edge_train.fleet.wire import END, Asked, read_asked
from edge_train.records import journal

_LENGTH = struct.Struct("<I")
_MOST_BYTES = 1 << 27  # of one message
_LONGEST_PATH = 100  # bytes; the system's limit is 108 here and 104 elsewhere
_ANSWER_SECONDS = 10.0  # for a process that asked to take its answer


@dataclass
class Call:
    """A message that waits for its answer.

    Attributes:
      asked: the message; None: it cannot be read.
      answer: takes the answer.
    """

    asked: Asked | None
    answer: Callable[[bytes], None]
    wrong: str = ""


class Calls(Protocol):
    """Where messages come from."""

    def next(self, seconds: float) -> Call | None:
        """Return the next message; None if there is none within some seconds."""
        ...


class SocketCalls:
    """Messages through a socket in the folder of a device, one connection each.

    Raises:
      InputError: its path is too long for the system, or it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        check_socket_path(path)
        path.unlink(missing_ok=True)  # of a process that was killed
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            before = os.umask(0o077)  # nobody else's messages
            try:
                self._socket.bind(str(path))
            finally:
                os.umask(before)
        except OSError as error:
            raise InputError(f"{path}: cannot be made ({error.strerror}).") from error
        self._socket.listen(4)

    def next(self, seconds: float) -> Call | None:
        """Return the next message; None if there is none within some seconds."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        connection, _ = self._socket.accept()
        connection.settimeout(_ANSWER_SECONDS)

        def answer(content: bytes) -> None:
            with connection, contextlib.suppress(OSError):  # whoever asked may be gone
                send(connection, content)

        try:
            return Call(read_asked(receive(connection)), answer)
        except OSError:
            connection.close()
            return None
        except ValueError as error:
            return Call(None, answer, str(error))


class BookCalls:
    """The journal of a server as one message: all its rounds, and that training is over.

    Attributes:
      exchange: "slopes" or "adapters".

    Raises:
      RunFolderError: it is no journal of a fleet.
    """

    def __init__(self, path: Path) -> None:
        records, _ = journal.read(path)
        if not records or "fleet" not in records[0]:
            raise RunFolderError(f"{path}: this is not the journal of a fleet's server.")
        tag = bytes.fromhex(str(records[0]["fleet"]["tag"]))
        self.exchange = str(records[0]["fleet"]["must"].get("exchange", "slopes"))
        entries = {n: message_of(entry) for n, entry in entries_in(records, path.parent)}
        self._asked: Asked | None = Asked(END, tag, NONE, entries)
        self._path = path

    def next(self, seconds: float) -> Call | None:
        """Return the message, once.

        Raises:
          RunFolderError: the journal ends before the run does.
        """
        if self._asked is None:
            raise RunFolderError(
                f"{self._path}: it ends here; this run goes on when the fleet has."
            )
        asked, self._asked = self._asked, None
        return Call(asked, lambda content: None)


def opened_calls(path: Path) -> Calls:
    """Return the messages that come through a journal, where there is one, or a socket."""
    return BookCalls(path) if path.is_file() else SocketCalls(path)


def check_socket_path(path: Path) -> None:
    """Refuse a path that no socket can have.

    Raises:
      InputError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        raise InputError(
            f"{path}: {length} bytes are too long for a socket, at most {_LONGEST_PATH}; choose a "
            "folder nearer to the root."
        )


def call(path: Path, content: bytes, seconds: float) -> bytes | None:
    """Return what the process behind a socket answers; None: nobody listens there.

    Raises:
      OSError: it went away meanwhile, or took longer than some seconds.
    """
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.settimeout(seconds)
        send(connection, content)
        return receive(connection)


def send(connection: socket.socket, content: bytes) -> None:
    """Write a message with its length before it."""
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> bytes:
    """Read a message.

    Raises:
      OSError: the other side went away, or says that it is too long.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _MOST_BYTES:
        raise OSError(f"a message of {length} bytes")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 16))
        if not part:
            raise ConnectionResetError("it was closed")
        parts += part
    return bytes(parts)
