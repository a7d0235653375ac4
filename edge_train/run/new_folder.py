"""The folder of a new run: an empty one, held by this process, and gone if no step is taken."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from edge_train.errors import RunFolderError
from edge_train.memory.link import Link
from edge_train.memory.unstarted import remove_unstarted
from edge_train.process.interrupts import held_back, undone
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
    new = _New(link)
    with undone(new.remove), ExitStack() as stack:
        with held_back():
            folder = new.make(out, name)
            stack.enter_context(only_writer(folder, say, link.lock, new.hold))
        try:
            check_out(out)  # another process may have been faster
            new.fill()
            yield folder
        finally:
            if not _began(folder):
                new.remove()
                link.tell(folder="", new=False, made=[])


class _New:
    """What was made for a run by now, known to its supervisor before it is there."""

    def __init__(self, link: Link) -> None:
        self._link, self._path, self._folder = link, Path(), ""
        self._made: list[str] = []

    def make(self, out: str | None, name: str) -> Path:
        """Make the folder of a run and those above it; return it.

        Raises:
          RunFolderError: they cannot be made.
        """
        folder = Path(out).expanduser() if out is not None else Path("runs", name)
        try:
            for number in count(2):
                made = [path for path in (folder, *folder.parents) if not path.exists()]
                self._path, self._made = folder, [str(path) for path in made]
                self._link.tell(made=self._made)
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    folder.mkdir(exist_ok=out is not None)
                    return folder
                except FileExistsError:
                    if out is not None:
                        raise
                    folder = Path("runs", f"{name}-{number}")
        except OSError as error:
            self.remove()
            raise RunFolderError(f"{folder}: cannot be made ({error.strerror}).") from error
        raise AssertionError("numbers do not end")

    def hold(self, lock: int) -> None:
        """Note that the folder is locked: from here on all that is in it is this run's."""
        self._folder = str(self._path)
        self._link.tell(folder=self._folder, new=True)
        self._link.lend(lock)

    def fill(self) -> None:
        """Make the folders in it.

        Raises:
          RunFolderError: they cannot be made.
        """
        try:
            RunFolder(self._path).make()
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be made ({error.strerror}).") from error

    def remove(self) -> None:
        """Remove what was made, unless a step was recorded; until it is held, empty ones only."""
        remove_unstarted(self._folder, self._made)


def _began(folder: Path) -> bool:
    try:
        return RunFolder(folder).journal.stat().st_size > 0
    except OSError:
        return False
