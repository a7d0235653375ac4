"""`edge-train bench watch`: what a page beside a run holds and takes, and what it refuses."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from edge_train import bench
from edge_train.errors import TrainingStopped
from edge_train.memory.fresh import command as command_of

_POLL_SECONDS = 3.0  # as often as the page asks while a run goes on
_POLLS = 20
_STEPS = 10_000_000  # more than there is time for
_OUTSIDE = (
    *("/../secret", "/run/../secret", "/run/..%2fsecret/report.html", "/run/%2e%2e/report.html"),
    *("/run/rows/../../secret", "/run/rows/samples/..%2f..%2fsecret", "/run/%2fetc/report.html"),
    *("/run/rows/lock", "/run/rows/recipe.toml", "/run/rows/journal.jsonl", "//etc/passwd"),
    *("/run/rows%00/report.html", "/run/link/report.html", "/run/rows/report.html?x", "*"),
)
_WANTED = "Wanted: at most 8 MB above a bare interpreter and 1 % of a core; everything refused."


def main(out: Path, seeds: int) -> str:
    """Watch a run for a minute, `seeds` times; return a Markdown table.

    Raises:
      TrainingStopped: the page or the run did not begin.
    """
    out.mkdir(parents=True, exist_ok=True)
    bare = statistics.median(_bare_bytes() for _ in range(seeds))
    rows = []
    for number in range(seeds):
        with tempfile.TemporaryDirectory(dir=out) as name, _run(Path(name)) as page:
            held, share, refused, asked = _measured(page)
        above = f"{(held - bare) / 1e6:.1f} MB"
        kept = f"{refused} of {asked}"
        rows.append([str(number + 1), above, f"{100 * share:.2f} %", kept])
    head = ["run", "held above a bare interpreter", "of a core", "requests refused"]
    return f"{bench.table(head, rows)}\n\n{_WANTED}"


def _bare_bytes() -> int:
    code = "print(open('/proc/self/statm').read().split()[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return int(done.stdout) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Page:
    """A page that is offered: its process, port and password."""

    pid: int
    port: int
    password: str

    def ask(
        self, path: str, method: str = "GET", body: str = "", **headers: str
    ) -> tuple[int, str]:
        """Return the status of an answer, and the session that it gives."""
        line = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, body or None, headers)
            answer = line.getresponse()
            answer.read()
            return answer.status, (answer.getheader("Set-Cookie") or "").partition(";")[0]
        finally:
            line.close()


def _measured(page: _Page) -> tuple[float, float, int, int]:
    """Return bytes held, share of a core, and how many of how many requests were refused.

    A page polls as a browser does; before it has the password, and for what lies outside of the
    known files after it, every request must be refused.
    """
    origin = f"http://127.0.0.1:{page.port}"
    paths = ["/runs", "/page.js", "/run/rows/data", "/run/rows/report.html", *_OUTSIDE]
    found = [page.ask(path)[0] for path in paths]
    found.append(page.ask("/login", "POST", "password=guess", Origin=origin)[0])
    found.append(page.ask("/login", "POST", f"password={page.password}", Origin="http://a.b")[0])
    _, session = page.ask("/login", "POST", f"password={page.password}", Origin=origin)
    found += [page.ask(path, Cookie=session)[0] for path in _OUTSIDE]
    found.append(page.ask("/run/rows/stop", "POST", Cookie=session, Origin=origin)[0])
    found.append(page.ask("/runs", Cookie=session, Host="evil.example")[0])
    began, busy = time.monotonic(), _busy_seconds(page.pid)
    for _ in range(_POLLS):
        time.sleep(_POLL_SECONDS)
        for path in ("/runs", "/run/rows/data"):
            if page.ask(path, Cookie=session)[0] != 200:
                raise TrainingStopped(f"bench watch: {path} was not answered.")
    share = (_busy_seconds(page.pid) - busy) / (time.monotonic() - began)
    refused = sum(400 <= status < 500 for status in found)
    return _held_bytes(page.pid), share, refused, len(found)


def _held_bytes(pid: int) -> int:
    """Return the most that a process held so far."""
    words = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()
    return int(words[0]) * 1024


def _busy_seconds(pid: int) -> float:
    """Return the processor time of a process, its system calls included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _run(folder: Path) -> Iterator[_Page]:
    """Train a small network and offer a page of it.

    Raises:
      TrainingStopped: one of them did not begin.
    """
    table, runs = folder / "rows.csv", folder / "runs"
    table.write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},{n % 2}\n" for n in range(64)))
    runs.mkdir()
    (runs / "link").symlink_to(folder)
    words = ["run", str(table), "--network", "mlp 8", "--mem", "300MB", "--steps", str(_STEPS)]
    command = command_of([*words, "--out", str(runs / "rows")])
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    page = subprocess.Popen(
        command_of(["watch", str(runs), "--host", "127.0.0.1"]), stderr=subprocess.PIPE, text=True
    )
    try:
        assert page.stderr is not None
        said = "".join(page.stderr.readline() for _ in range(2))  # the password and the address
        while not (runs / "rows" / "journal.jsonl").exists() and training.poll() is None:
            time.sleep(0.1)
        found = re.search(r"browser: (\w+)(?s:.)*http://127\.0\.0\.1:(\d+)/", said)
        if found is None or training.poll() is not None:
            raise TrainingStopped(f"bench watch: nothing to watch ({said.strip()}).")
        yield _Page(page.pid, int(found[2]), found[1])
    finally:
        for process in (page, training):
            process.terminate()
            process.wait()
