"""The folder of a new run: an empty one, held by this process, and gone if no step is taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from edge_train.errors import RunFolderError
from edge_train.memory.link import Link
from edge_train.memory.unstarted import remove_unstarted
from edge_train.records.folder import RunFolder
from edge_train.records.lock import only_writer

_NAMED = 3  # of the files that are in the way


def check_out(out: str | None) -> None:
    """Refuse an `--out` that holds something, before the work that would fill it.

    Raises:
      RunFolderError: it holds a run, or other files, or cannot be looked at.
    """
    if out is None:
        return
    folder = Path(out).expanduser()
    try:
        if not folder.exists():
            return
        there = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made ({error.strerror}).") from error
    if RunFolder(folder).journal.name in there or RunFolder(folder).recipe.name in there:
        raise RunFolderError(
            f"{folder} holds a run already; go on with `edge-train run --resume {folder}` or "
            "name another --out."
        )
    others = [name for name in there if not _is_of_a_start(folder, name)]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise RunFolderError(
            f"{folder} holds no run but other files ({', '.join(others[:_NAMED])}{more}); name "
            "another --out."
        )


def _is_of_a_start(folder: Path, name: str) -> bool:
    """Return whether a run that was killed before it had a recipe may have left this."""
    path = folder / name
    if path in (RunFolder(folder).checkpoints, RunFolder(folder).samples):
        return path.is_dir() and not any(path.iterdir())
    return path == RunFolder(folder).lock or name.endswith(".partial")


@contextmanager
def new_folder(
    out: str | None, name: str, link: Link, say: Callable[[str], None]
) -> Iterator[Path]:
    """Yield the folder of a new run: `out`, or the next free `runs/<name>[-n]`.

    Raises:
      RunFolderError: it holds something, another process has it, or it cannot be made.
    """
    check_out(out)
    folder, made = _make(out, name)
    with only_writer(folder, say):
        try:
            check_out(out)  # another process may have been faster
            link.tell(folder=str(folder), made=[str(path) for path in made])
            _fill(folder)
            yield folder
        finally:
            if not _began(folder):
                link.tell(folder="", made=[])
                remove_unstarted(str(folder), [str(path) for path in made])


def _make(out: str | None, name: str) -> tuple[Path, list[Path]]:
    """Return a folder that exists now, and what was made for it, the innermost first."""
    folder = Path(out).expanduser() if out is not None else Path("runs", name)
    try:
        for number in count(2):
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir(exist_ok=out is not None)
                return folder, made
            except FileExistsError:
                if out is not None:
                    raise
                folder = Path("runs", f"{name}-{number}")
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made ({error.strerror}).") from error
    raise AssertionError("numbers do not end")


def _fill(folder: Path) -> None:
    try:
        RunFolder(folder).make()
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made ({error.strerror}).") from error


def _began(folder: Path) -> bool:
    try:
        return RunFolder(folder).journal.stat().st_size > 0
    except OSError:
        return False
