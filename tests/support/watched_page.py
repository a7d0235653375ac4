"""A watch page in this process, asked over raw sockets; and journals to put before it."""

import json
import socket
import threading

from edge_train.records.lines import encode
from edge_train.watch.gate import Gate
from edge_train.watch.runs import Runs
from edge_train.watch.server import Server
from edge_train.watch.site import Site

PATIENCE_SECONDS = 60  # only an alarm for a server that hangs


def step(number, **more):
    """Return the record of a step."""
    found = {"kind": "step", "step": number, "loss": 1 / (number + 1), "eval": None, "scalars": []}
    found |= {"forwards": 2, "backwards": 0, "peak_bytes": 7_000_000, "seconds": 0.5}
    return {**found, "resident_bytes": 6_000_000, **more}


def journal(steps, *more, cap_bytes=10_000_000, planned=None):
    """Return the bytes of a journal with so many steps."""
    facts = {"task": "network", "method": "adamw", "cap_bytes": cap_bytes}
    facts["steps_planned"] = steps if planned is None else planned
    start = {"kind": "start", "version": 1, "facts": facts, "slope_check": None, "eval": 2.0}
    records = [start, *map(step, range(steps)), *more]
    return b"".join(map(encode, records))


END = {"kind": "end", "status": "done", "seconds_total": 3.0}


def make_run(folder, steps=5, *more, **facts):
    """Make a run folder with a journal, a report and a picture."""
    (folder / "samples").mkdir(parents=True)
    (folder / "journal.jsonl").write_bytes(journal(steps, *more, **facts))
    (folder / "recipe.toml").write_text('task = "network"\n')
    (folder / "report.html").write_text("<p>the report</p>")
    (folder / "samples" / "after-01.png").write_bytes(b"\x89PNG picture")
    return folder


class Page:
    """A page of the runs in a folder, answered by a thread as long as the block runs."""

    def __init__(self, root, host=None, **how):
        self.said = []
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self.runs = Runs(str(root), **how)
        self.gate = Gate(host, self.port, self.said.append)
        self.site = Site(self.runs, self.gate)
        self._near, far = socket.socketpair()
        self._far = far
        self._server = Server(self.site, listener, far.fileno())
        self._thread = threading.Thread(target=self._server.serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._near.close()
        self._thread.join(PATIENCE_SECONDS)
        self._server.close()
        self._far.close()
        assert not self._thread.is_alive()

    def connect(self):
        """Return a connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)

    def raw(self, request):
        """Send bytes; return all that is answered."""
        with self.connect() as end:
            end.sendall(request)
            end.shutdown(socket.SHUT_WR)
            return all_of(end)

    def ask(self, path, method="GET", body="", **headers):
        """Return the status and the body of an answer; a header is left out where it is None."""
        local = f"127.0.0.1:{self.port}"
        given = {"Host": local, **({"Content-Length": len(body)} if body else {})}
        if method == "POST":
            given |= {"Origin": f"http://{local}", "X-Token": self.gate.token}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
        text = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", body])
        return parts_of(self.raw(text.encode("latin-1")))

    def data(self, path):
        """Return the JSON at an address."""
        status, _, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)


def all_of(end):
    """Return what comes until the other side hangs up."""
    found = b""
    while piece := end.recv(65_536):
        found += piece
    return found


def parts_of(answer):
    """Return status, head and body of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1"), body
