"""Records by name: ours from the modules of a package, those of other packages by entry point.

A thing that has a name (a task, a method, an engine, ...) is one frozen record. Readers ask the
registry for it and then ask the record; no reader keeps a table of names of its own. Another
package registers a record in its metadata, and no file of ours is touched:

    [project.entry-points."edge_train.methods"]
    lion = "my_package.lion:LION"
"""

import difflib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from edge_train.errors import InputError


class Named(Protocol):
    """A record: `name` is what people type."""

    @property
    def name(self) -> str:
        """What people type."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """All records of one kind, imported when they are asked for.

    Args:
      kind: what people call one of them, "task"; entry points are in the group `edge_train.tasks`.
      source: the module that holds ours, or the package whose modules do.
      attribute: of these modules: a record, or a tuple of them.
      folders: ours are in the folders of the package; the modules beside them hold none.
    """

    def __init__(self, kind: str, source: str, attribute: str, *, folders: bool = False) -> None:
        self.kind, self._source, self._attribute = kind, source, attribute
        self._folders = folders
        self._found: dict[str, T] | None = None
        self._broken: dict[str, str] = {}

    def get(self, name: str) -> T:
        """Return the record of a name.

        Raises:
          InputError: there is none; the nearest name and the list are in the message.
        """
        for record in self._likely(name):
            if record.name == name:
                return record
        found = self.all()
        if name in found:
            return found[name]
        if name in self._broken:
            raise InputError(f"{self.kind} {name!r} cannot be loaded: {self._broken[name]}.")
        raise InputError(f"{self.kind} {name!r} is not known; {nearest(name, found)}.")

    def all(self) -> dict[str, T]:
        """Return every record by its name, ours first."""
        if self._found is None:
            records = [r for name in self._modules() for r in self._records_in(name)]
            self._found = {record.name: record for record in records}
            kinds = tuple({type(record) for record in records})
            for entry in self._entries():
                for record in self._loaded(entry):
                    if kinds and not isinstance(record, kinds):
                        self._broken[entry.name] = f"{entry.value} is no {kinds[0].__name__}"
                    elif record.name in self._found:
                        self._broken[entry.name] = (
                            f"{entry.value} names its {self.kind} {record.name!r}, which exists"
                        )
                    else:
                        self._found[record.name] = record
        return self._found

    def names(self) -> tuple[str, ...]:
        """Return every name, ours first."""
        return tuple(self.all())

    def broken(self) -> dict[str, str]:
        """Return the entry points that cannot be used, each with the reason."""
        self.all()
        return self._broken

    def _likely(self, name: str) -> tuple[T, ...]:
        """Return the records of the module that is called like the name, so that few are loaded."""
        if self._found is not None:
            return ()
        module = name.replace("-", "_")
        return self._records_in(module) if module in self._modules() else ()

    def _modules(self) -> Collection[str]:
        """Return the modules of ours that may hold records, without their package; "" is it."""
        path = getattr(import_module(self._source), "__path__", None)
        if path is None:
            return [""]
        found = pkgutil.iter_modules(path)
        return [info.name for info in found if info.ispkg or not self._folders]

    def _records_in(self, module: str) -> tuple[T, ...]:
        full = f"{self._source}.{module}" if module else self._source
        return _as_tuple(getattr(import_module(full), self._attribute, ()))

    def _entries(self) -> Collection[EntryPoint]:
        return tuple(entry_points(group=f"edge_train.{self.kind.replace(' ', '_')}s"))

    def _loaded(self, entry: EntryPoint) -> tuple[T, ...]:
        """Return the records behind an entry point; what goes wrong there stays there."""
        try:
            records: tuple[T, ...] = _as_tuple(entry.load())
            for record in records:
                if not isinstance(record.name, str):
                    raise TypeError(f"{type(record).__name__} has no name")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of others may raise anything
            self._broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"
            return ()
        return records


def nearest(word: str, known: Collection[str], mark: str = "") -> str:
    """Return "did you mean" with the nearest of some words, and all of them.

    Args:
      mark: put before each, such as `--`.

    >>> nearest("zoo", ["zo", "tpsgd"])
    "did you mean 'zo'? There are zo, tpsgd"
    """
    if not known:
        return "there are none"
    names = [f"{mark}{name}" for name in known]
    close = difflib.get_close_matches(f"{mark}{word}", names, n=1, cutoff=0.5)
    start = f"did you mean {close[0]!r}? There are " if close else "choose one of "
    return start + ", ".join(names)


def load(where: str) -> Any:
    """Return what a dotted name `module:attribute` stands for; imports the module.

    >>> load("math:pi")
    3.141592653589793
    """
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names are imported when they are used.

    Args:
      homes: name -> the module of the package that has it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find


def _as_tuple(found: Any) -> tuple[Any, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)
