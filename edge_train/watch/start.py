"""Start the process that watches: in place of this one, or beside a run whose memory counts it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_train.errors import InputError
from edge_train.memory.fresh import fresh

_CODE = "from edge_train.watch.main import main; sys.exit(main(sys.argv[1]))"
_ALONE = {"one": False, "beside": False}
_LAST_PORT = 65535


def _check_system() -> None:
    """Refuse where files cannot be opened below a folder that is open, without following links.

    Raises:
      InputError: this is Windows.
    """
    if sys.platform == "win32":
        raise InputError(
            "edge-train watch and --watch need Linux or macOS, this is Windows; read the run's "
            "report.html, or leave --watch out and use --report-to tensorboard."
        )


def _command(**words: object) -> list[str]:
    return [sys.executable, *fresh(_CODE), json.dumps(words)]


def become(root: Path, host: str | None, port: int | None) -> int:
    """Watch the runs in a folder, in a fresh and small process that takes the place of this one.

    Raises:
      InputError: there is no such folder or no such port, or this is Windows.
    """
    _check_system()
    if port is not None and not 0 <= port <= _LAST_PORT:
        raise InputError(f"--port is {port}, must be from 0 to {_LAST_PORT}.")
    if not root.is_dir():
        raise InputError(
            f"{root}: there is no such folder; runs are put into ./runs unless --out names another "
            "place. Type `edge-train watch FOLDER`."
        )
    command = _command(root=str(root.resolve()), host=host, port=port, **_ALONE)
    os.execv(command[0], command)  # noqa: S606 - no shell
    raise AssertionError("this process is another one by now")


@contextmanager
def beside(run: Path | None) -> Iterator[int]:
    """Have a page offered on this machine as long as this block runs; yield its process id.

    The process is a child, so that whoever measures this tree counts it, and ends with its
    standard input, which only this process can keep open.

    Args:
      run: its folder, if that is known already; else `./runs` is watched.

    Raises:
      InputError: this is Windows.
    """
    _check_system()
    root = Path("runs") if run is None else run
    command = _command(
        root=str(Path.cwd() / root.expanduser()), host=None, port=None, one=run is not None,
        beside=True,
    )  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process.pid
    finally:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        process.wait()
