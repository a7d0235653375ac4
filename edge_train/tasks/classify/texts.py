"""Labeled texts, alone or in pairs, from tables of any kind, checked before they are trained on."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.tables.names import KNOWN, text_of
from edge_train.formats.tables.splits import beside, splits_of
from edge_train.formats.tables.table import DELIMITED, PARQUET, RECORDS, Table, open_table
from edge_train.tasks.classify.columns import Columns, Places, places_like, places_of
from edge_train.tasks.classify.labels import (
    UNDECIDED,
    UNLABELED,
    is_undecided,
    labels_of,
    written,
)
from edge_train.tasks.sources import FILES, SOURCES_FLAG
from edge_train.units import shown

# In a folder a txt beside tables is a readme more often than a table.
SPLIT_KINDS = tuple(kind for kind in (*DELIMITED, *RECORDS, PARQUET) if kind != ".txt")
_HELD_OUT = 10  # without a dev file, every tenth example of a single one is held out


@dataclass(frozen=True)
class Example:
    """A text and its label, as written in the file; of a pair also the second text.

    `source` names where it is from, where that was asked for.
    """

    text: str
    label: str
    pair: str | None = None
    source: str = ""


@dataclass(frozen=True)
class LabeledTexts:
    """Examples to train on, to choose by and, where there are any, to judge the result by.

    Attributes:
      labels: every label as written; its place in the tuple is its number.
      notices: what a user should know of how they were read and what was left out, a line each.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @property
    def in_pairs(self) -> bool:
        """Whether every example is two texts."""
        return self.train[0].pair is not None

    def numbers(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of every example's label."""
        number_of = {label: number for number, label in enumerate(self.labels)}
        return [number_of[example.label] for example in examples]


def load_texts(path: Path, names: Sequence[str], asked: Columns | None = None) -> LabeledTexts:
    """Return the examples of a folder (`train.tsv`, `dev.tsv`, ...) or of a single file.

    A file has a column of texts, or two of them for pairs, and one of labels: those that were asked
    for, else by their names (`formats/tables/names.py`), else by what is in them. A dev or test
    part without labels is set aside. Without a dev file every tenth example is held out; see
    `_held_out`.

    Args:
      names: what the model calls its labels, in the order of its outputs; none for a model that
        gets as many outputs as there are labels. See `labels_of`.
      asked: columns that a user named.

    Raises:
      InputError: a file is missing, empty or not a table; a label is not of this model; all
        examples have the same label.
    """
    parts = read_parts(path, asked or Columns(), named=True)
    train, source, said = parts.train, parts.source, parts.said
    labels, line = labels_of(source, {example.label for example in train}, names, parts.order)
    said += [line] if line else []
    dev, test = (parts.rest(part, labels) for part in ("dev", "test"))
    if not dev:
        train, dev = _held_out(train)
        if not dev or len({example.label for example in train}) < 2:
            raise InputError(
                f"{source}: {len(train) + len(dev)} examples are too few to hold some out; add "
                "more, or put a dev file beside it."
            )
    said += _oddities(train, (*dev, *test))
    if unseen := sorted({e.label for e in train} - {e.label for e in dev}):
        said.append(
            f"no dev example has the label {', '.join(map(shown, unseen[:5]))}: training is judged "
            "without it; put a dev file beside the training file"
        )
    return LabeledTexts(train, dev, test, labels, tuple(dict.fromkeys(said)))


def _held_out(
    examples: tuple[Example, ...],
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return what is left to train on, and every tenth example.

    Where these lack a label, as in files whose labels alternate, it is every tenth of each label;
    an only example is trained on.
    """
    chosen = set(range(0, len(examples), _HELD_OUT))
    counts = Counter(example.label for example in examples)
    if {examples[at].label for at in chosen} != set(counts):
        seen: Counter[str] = Counter()
        chosen = set()
        for at, example in enumerate(examples):
            if seen[example.label] % _HELD_OUT == 0 and counts[example.label] > 1:
                chosen.add(at)
            seen[example.label] += 1
    train = tuple(example for at, example in enumerate(examples) if at not in chosen)
    return train, tuple(examples[at] for at in sorted(chosen))


@dataclass(frozen=True)
class Parts:
    """The training examples, and what reads the other parts.

    Attributes:
      source: the first training file, for messages.
      said: what a user should know; grows while parts are read.
    """

    train: tuple[Example, ...]
    source: Path
    said: list[str]
    files: Mapping[str, Sequence[Path]]
    reader: "_Reader"

    @property
    def order(self) -> tuple[str, ...]:
        """What the training file calls its classes, in their order; empty where it does not."""
        return self.reader.order

    def rest(self, part: str, labels: Sequence[str] | None = None) -> tuple[Example, ...]:
        """Return the dev or test part; empty where there is none, or it has no labels.

        Args:
          labels: that the training part may have; None: any.
        """
        some = {example.label for example in self.train} if labels is None else labels
        return self.reader.part(self.files.get(part, ()), some, any_label=labels is None)


def read_parts(path: Path, asked: Columns, *, named: bool = False) -> Parts:
    """Return the parts of a folder, or a single file as the training part.

    Args:
      named: labels that are numbers of classes get the names that the file has for these.

    Raises:
      InputError: there is none, or it is no table.
    """
    said: list[str] = []
    files: Mapping[str, Sequence[Path]] = {"train": (path,)}
    if path.is_dir():
        splits = splits_of(path, SPLIT_KINDS)
        files = splits.files
        said += splits.said
    elif not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    elif unused := beside(path, SPLIT_KINDS):
        verb = "is" if len(unused) == 1 else "are"
        said.append(
            f"{' and '.join(file.name for file in unused)} beside {path.name} {verb} not used; "
            f"--data {path.parent} uses the folder"
        )
    reader = _Reader(asked, said, named=named)
    train = tuple(example for file in files["train"] for example in reader.training(file))
    return Parts(train, files["train"][0], said, files, reader)


def read_examples(path: Path, asked: Columns | None = None) -> tuple[Example, ...]:
    """Return the examples of one training file, in order; its suffix says what it is.

    Raises:
      InputError: it is missing, empty or not a table, or half of its rows are no examples.
    """
    return tuple(_Reader(asked or Columns(), []).training(path))


class _Reader:
    """Reads the files of one set of data; what the first tells of the columns holds for all."""

    def __init__(self, asked: Columns, said: list[str], *, named: bool = False) -> None:
        self.order: tuple[str, ...] = ()  # of the classes of the first training file
        self._named = named
        self._asked = asked
        self._said = said
        self._train: tuple[Table, Places] | None = None

    def training(self, path: Path) -> list[Example]:
        """Return the examples of a training file, without rows that are none."""
        table = self._opened(path)
        if self._train is None:
            places = places_of(table, self._asked)
            self._train = table, places
            self._say(places.said)
            self.order = self._class_names(table, places)
        places = places_like(table, *self._train)
        if places.label is None:
            raise InputError(f"{path}: no column of labels as in {self._train[0].path.name}.")
        rows = list(_examples(table, places, self._class_names(table, places)))
        if (asked := self._asked.source) == FILES:
            rows = [(number, replace(one, source=path.name)) for number, one in rows]
        elif asked is not None:
            rows = _with_sources(rows, table, table.place(asked, SOURCES_FLAG))
        none = ""
        if is_undecided({example.label for _, example in rows} - {""}):
            none = UNDECIDED
        found = []
        for number, example in rows:
            if example.label not in ("", none):
                found.append(example)
            else:
                why = "the label '-', which stands for none" if example.label else "no label"
                table.wrong.add(number, f"has {why}")
        self._finish(table)
        if not found:
            raise InputError(f"{path}: no examples in it; expected lines of a text and its label.")
        return found

    def part(
        self, files: Sequence[Path], labels: Collection[str], *, any_label: bool
    ) -> tuple[Example, ...]:
        """Return the examples of the dev or test part; none where they have no labels."""
        assert self._train is not None
        found: list[Example] = []
        for path in files:
            table = self._opened(path)
            places = places_like(table, *self._train)
            if places.label is None:
                self._say(
                    f"{path.name} has no column of labels ({table.names()}), so it is set aside"
                )
                continue
            # among numbers of a scale -1 may be one; in a whole part of them it is none
            none = {""} if any_label else {"", UNLABELED, UNDECIDED}.difference(labels)
            labeled, unlabeled = [], 0
            names = self._class_names(table, places)
            for number, example in _examples(table, places, names):
                if example.label in none:
                    unlabeled += 1
                elif any_label or example.label in labels:
                    labeled.append(example)
                else:
                    raise InputError(
                        f"{path}: label {shown(example.label)} of {table.wrong.place} {number} is "
                        "in the dev or test file, but the training file has "
                        f"{', '.join(map(shown, sorted(labels)[:5]))} only."
                    )
            self._finish(table)
            if UNLABELED not in labels and {one.label for one in labeled} == {UNLABELED}:
                labeled, unlabeled = [], len(labeled)
            if unlabeled and not labeled:
                self._say(f"{path.name} has no labels, so it is set aside")
            elif unlabeled:
                self._say(f"{unlabeled} texts of {path.name} have no label and are left out")
            found += labeled
        return tuple(found)

    def _class_names(self, table: Table, places: Places) -> tuple[str, ...]:
        if places.label is None or not self._named:
            return ()
        return table.class_names.get(table.columns[places.label], ())

    def _opened(self, path: Path) -> Table:
        asked = self._asked
        source = None if asked.source == FILES else asked.source
        table = open_table(path, KNOWN, (asked.text, asked.label, asked.pair, source))
        self._said += table.said
        return table

    def _finish(self, table: Table) -> None:
        table.wrong.check()
        self._say(table.wrong.sentence())

    def _say(self, line: str) -> None:
        if line:
            self._said.append(line)


def _examples(
    table: Table, places: Places, names: Sequence[str] = ()
) -> Iterator[tuple[int, Example]]:
    """Yield the number of every row that has its texts, and what it says; an empty label is none.

    A row without them is wrong.

    Args:
      names: of the classes 0, 1, ..., for labels that are these numbers; -1 is then none.
    """
    for number, row in table.rows():
        text = text_of(row[places.text])
        pair = None if places.pair is None else text_of(row[places.pair])
        cell = None if places.label is None else row[places.label]
        if text is None or (places.pair is not None and pair is None):
            table.wrong.add(number, "has no text" if text is None else "has no second text")
        elif isinstance(cell, list | dict):
            table.wrong.add(number, "has more than one label; one a text is trained")
        else:
            if names and isinstance(cell, int):
                cell = names[cell] if 0 <= cell < len(names) else None
            yield number, Example(text, written(cell) or "", pair)


def _with_sources(
    rows: list[tuple[int, Example]], table: Table, place: int
) -> list[tuple[int, Example]]:
    """Return examples with what a column says of their sources; an empty cell is a source, too."""
    found = {number: written(row[place]) or "" for number, row in table.rows()}
    return [(number, replace(one, source=found[number])) for number, one in rows]


def _oddities(train: Sequence[Example], others: Sequence[Example]) -> Iterator[str]:
    """Yield a line on texts that are there twice, and one on classes with a single example."""
    labels_by_text: dict[tuple[str, str | None], set[str]] = {}
    for example in train:
        labels_by_text.setdefault((example.text, example.pair), set()).add(example.label)
    if twice := len(train) - len(labels_by_text):
        odd = sum(len(labels) > 1 for labels in labels_by_text.values())
        also = f"; {odd} texts have more than one label" if odd else ""
        yield f"{twice} of {len(train)} training texts are there more than once{also}"
    seen = sum((example.text, example.pair) in labels_by_text for example in others)
    if seen:
        yield f"{seen} of {len(others)} dev and test texts are training texts, too"
    counts = Counter(example.label for example in train)
    if single := sorted(label for label, count in counts.items() if count == 1):
        some = ", ".join(map(shown, single[:5])) + (", ..." if len(single) > 5 else "")
        verb = "class has" if len(single) == 1 else "classes have"
        yield f"{len(single)} {verb} one training example only: {some}"
