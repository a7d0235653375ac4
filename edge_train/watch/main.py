"""The process that watches: `main` is what a fresh interpreter runs, with words as JSON."""

import json
import socket
import sys
from contextlib import suppress

from edge_train.process import interrupts
from edge_train.watch.gate import Gate
from edge_train.watch.runs import Runs
from edge_train.watch.server import Server
from edge_train.watch.site import Site

PORT = 8765
_NEXT_PORTS = 20  # tried where nobody named one: another page may be open
_BACKLOG = 16


def main(text: str) -> int:
    """Offer the page until this process is told to end; return an exit status.

    Args:
      text: root, host (or null), port (or null), one, beside.
    """
    interrupts.listen()
    words = json.loads(text)
    host, port = words["host"], words["port"]
    try:
        listener = _bound(host or "127.0.0.1", port)
    except (OSError, UnicodeError) as error:  # UnicodeError: of a name that no host can have
        where = f"{host or '127.0.0.1'}, port {port or PORT}"
        why = error.strerror if isinstance(error, OSError) else "no name of a host"
        _say(f"{where}: the page cannot be offered there ({why}); name another --host or --port.")
        return 2
    number = listener.getsockname()[1]
    runs = Runs(words["root"], one=words["one"], beside=words["beside"])
    gate = Gate(host, number, _say)
    shown = host if host not in (None, "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared
    shown = f"[{shown}]" if ":" in str(shown) else shown
    _say(f"watch {words['root']} at http://{shown}:{number}/")
    server = Server(Site(runs, gate), listener, sys.stdin.fileno() if words["beside"] else None)
    server.serve()
    return 0


def _bound(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens.

    Raises:
      OSError: the host is no address of this machine, or the port is taken.
    """
    kind, *_, address = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_STREAM)[0]
    ports = [port] if port is not None else range(PORT, PORT + _NEXT_PORTS)
    for number in ports:
        listener = socket.socket(kind, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], number))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            if number == ports[-1]:
                raise
        else:
            return listener
    raise AssertionError("a port is named or there are several")


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"edge-train: {text}", file=sys.stderr, flush=True)
