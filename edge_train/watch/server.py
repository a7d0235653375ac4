"""The loop that answers browsers: one thread, few connections, none of which can hold it up."""

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable

from edge_train.watch.http import (
    MOST_BODY_BYTES,
    MOST_HEAD_BYTES,
    Answer,
    Refused,
    head_of,
    parse,
    refusal,
)
from edge_train.watch.site import Site

MOST_CONNECTIONS = 24
REQUEST_SECONDS = 10.0  # to send a request; a page on a slow line sends one in less than one
ANSWER_SECONDS = 60.0  # to take the answer
_LINGER_SECONDS = 2.0
_PIECE_BYTES = 65_536
_MOST_READ = MOST_HEAD_BYTES + MOST_BODY_BYTES + 4


class _Connection:
    """A browser: what it sent so far, what it is still to get."""

    def __init__(self, end: socket.socket, until: float) -> None:
        self.end, self.until = end, until
        self.received = b""
        self.to_send = b""
        self.answer: Answer | None = None
        self.sent_of_file = 0


class Server:
    """Offers a site.

    Args:
      listener: a bound socket.
      lifeline: a descriptor; when its other end is closed, this process is to end.
    """

    def __init__(self, site: Site, listener: socket.socket, lifeline: int | None = None) -> None:
        self._site, self._listener, self._lifeline = site, listener, lifeline
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, _Connection] = {}
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        if lifeline is not None:
            self._selector.register(lifeline, selectors.EVENT_READ)

    def serve(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Answer until the lifeline ends, or `goes_on`, asked after every event, says no."""
        while goes_on():
            deadlines = [one.until for one in self._open.values()]
            wait = max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None
            for key, events in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fd == self._lifeline:
                    return
                elif key.fd in self._open:
                    self._go_on(self._open[key.fd], events)
            now = time.monotonic()
            for one in [one for one in self._open.values() if one.until <= now]:
                self._close(one)

    def close(self) -> None:
        """Let go of every connection."""
        for one in list(self._open.values()):
            self._close(one)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            end, _ = self._listener.accept()
        except OSError:  # it is gone already, or there are no descriptors left
            return
        if len(self._open) >= MOST_CONNECTIONS:  # whoever waits longest makes room
            self._close(min(self._open.values(), key=lambda one: one.until))
        end.setblocking(False)
        one = _Connection(end, time.monotonic() + REQUEST_SECONDS)
        self._open[end.fileno()] = one
        self._selector.register(end, selectors.EVENT_READ)

    def _go_on(self, one: _Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._receive(one)
            elif events & selectors.EVENT_WRITE:
                self._send(one)
        except BlockingIOError:
            return
        except OSError:  # it went away
            self._close(one)

    def _receive(self, one: _Connection) -> None:
        piece = one.end.recv(_MOST_READ)
        if not piece:
            self._close(one)
        if not piece or one.answer is not None:  # more than was read: let go of it
            return
        one.received += piece
        try:
            request = parse(one.received)
            if request is None:
                return
            answer = self._site.answer(request)
        except Refused as no:
            self._site.refused += 1
            answer = refusal(no.status, str(no))
        except Exception as error:  # noqa: BLE001 - one request must not end the page of all
            print(f"edge-train: {type(error).__name__}: {error}", file=sys.stderr)
            answer = refusal(500, "this could not be answered; the terminal says why.")
        one.answer, one.to_send = answer, head_of(answer) + answer.body
        one.until = time.monotonic() + ANSWER_SECONDS
        self._selector.modify(one.end, selectors.EVENT_WRITE)

    def _send(self, one: _Connection) -> None:
        answer = one.answer
        assert answer is not None
        if not one.to_send and answer.file is not None:
            left = min(answer.size - one.sent_of_file, _PIECE_BYTES)
            one.to_send = os.pread(answer.file, left, one.sent_of_file) if left > 0 else b""
            one.sent_of_file += len(one.to_send)
        if one.to_send:
            sent = one.end.send(one.to_send[:_PIECE_BYTES])
            one.to_send = one.to_send[sent:]
        else:
            self._finish(one)

    def _finish(self, one: _Connection) -> None:
        """End an answer, then wait for the browser to hang up.

        If we did first, what it sent beyond the request would have it lose the answer.
        """
        one.end.shutdown(socket.SHUT_WR)
        one.until = time.monotonic() + _LINGER_SECONDS
        self._selector.modify(one.end, selectors.EVENT_READ)

    def _close(self, one: _Connection) -> None:
        self._selector.unregister(one.end)
        del self._open[one.end.fileno()]
        if one.answer is not None and one.answer.file is not None:
            os.close(one.answer.file)
        one.end.close()
