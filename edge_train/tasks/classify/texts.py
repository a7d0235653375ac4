"""Labeled texts from tsv, csv or jsonl files, checked before anything is trained on them."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import InputError

_SUFFIXES = (".tsv", ".csv", ".jsonl")
_PARTS = {"train": ("train",), "dev": ("dev", "valid", "validation"), "test": ("test",)}
_TEXT_COLUMNS = ("text", "sentence", "review", "content")
_LABEL_COLUMNS = ("label", "labels", "class", "sentiment", "target")
_HELD_OUT = 10  # without a dev file, every tenth example of a single one is held out


@dataclass(frozen=True)
class Example:
    """A text and its label, as written in the file."""

    text: str
    label: str


@dataclass(frozen=True)
class LabeledTexts:
    """Examples to train on, to choose by and, where there are any, to judge the result by.

    Attributes:
      labels: every label as written; its place in the tuple is its number.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]

    def numbers(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of every example's label."""
        number_of = {label: number for number, label in enumerate(self.labels)}
        return [number_of[example.label] for example in examples]


def load_texts(path: Path, names: Sequence[str]) -> LabeledTexts:
    """Return the examples of a folder (`train.tsv`, `dev.tsv`, ...) or of a single file.

    A file has a column of texts and one of labels: found by their names in a first line, in jsonl
    by the keys. Without names the labels are the column of numbers, else the one with the fewest
    different values, else the last; the text is the longest of the others.
    Without a dev file every tenth example is held out.

    Args:
      names: what the model calls its labels, in the order of its outputs. Labels in the files are
        these names, or numbers from 0 on.

    Raises:
      InputError: a file is missing, empty, not UTF-8 or not a table; a label is not of this model;
        all examples have the same label.
    """
    if path.is_dir():
        files = files_of(path)
        train = read_examples(files["train"])
        dev = read_examples(files["dev"]) if "dev" in files else ()
        test = read_examples(files["test"]) if "test" in files else ()
        source = files["train"]
    else:
        train, dev, test, source = read_examples(path), (), (), path
    labels = _labels(source, train, names)
    for part in (dev, test):
        for example in part:
            if example.label not in labels:
                raise InputError(
                    f"{path}: label {example.label!r} is in the dev or test file, but the training "
                    f"file has {', '.join(map(repr, labels))} only."
                )
    if not dev:
        dev = train[::_HELD_OUT]
        train = tuple(e for number, e in enumerate(train) if number % _HELD_OUT)
        if len({example.label for example in train}) < 2:
            raise InputError(
                f"{source}: {len(train) + len(dev)} examples are too few to hold some out; add "
                "more, or put a dev file beside it."
            )
    return LabeledTexts(train, dev, test, labels)


def files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by the part that they hold.

    Raises:
      InputError: there is none to train on.
    """
    found = {
        part: path
        for part, stems in _PARTS.items()
        for path in sorted(folder.iterdir())
        if path.stem in stems and path.suffix in _SUFFIXES
    }
    if "train" not in found:
        raise InputError(
            f"{folder}: no train.tsv, train.csv or train.jsonl; put one there, or name a single "
            "file: --data FILE."
        )
    return found


def _labels(source: Path, examples: Sequence[Example], names: Sequence[str]) -> tuple[str, ...]:
    """Return every label, in the order of the model's outputs."""
    found = sorted({example.label for example in examples})
    if len(found) == 1:
        raise InputError(
            f"{source}: all {len(examples)} examples have the label {found[0]!r}; to tell classes "
            "apart takes examples of two at least."
        )
    if set(found) <= set(names):
        return tuple(names)
    if all(label.isdecimal() and str(int(label)) == label for label in found):
        outside = next((label for label in found if int(label) >= len(names)), None)
        if outside is None:
            return tuple(map(str, range(len(names))))
        raise InputError(
            f"{source}: label {outside} is out of range; the model has {len(names)} classes, 0 to "
            f"{len(names) - 1}. Name a model with more, or remove these examples."
        )
    if len(found) == len(names) and all(name.startswith("LABEL_") for name in names):
        return tuple(found)  # the model's outputs have no names of their own
    raise InputError(
        f"{source}: labels {', '.join(map(repr, found[:5]))} do not fit a model whose "
        f"{len(names)} classes are {', '.join(map(repr, names[:5]))}; write those names, or "
        "numbers from 0 on."
    )


def read_examples(path: Path) -> tuple[Example, ...]:
    """Return the examples of one file, in order; its suffix says what it is.

    Raises:
      InputError: it is missing, empty, not UTF-8, or a line does not have both columns.
    """
    if path.suffix not in _SUFFIXES:
        raise InputError(
            f"{path}: expected a folder with train and dev files, or one file that ends in "
            f"{', '.join(_SUFFIXES)}."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8; save the file as UTF-8 text."
        ) from error
    rows = _json_rows(path, text) if path.suffix == ".jsonl" else _table_rows(path, text)
    if not rows:
        raise InputError(f"{path}: no examples in it; expected lines of a text and its label.")
    return tuple(rows)


def _json_rows(path: Path, text: str) -> list[Example]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            keys = {str(key).lower(): value for key, value in row.items()}
        except (ValueError, AttributeError):
            raise InputError(f"{path}: line {number} is not a JSON object.") from None
        cells = [
            next((keys[name] for name in known if name in keys), None)
            for known in (_TEXT_COLUMNS, _LABEL_COLUMNS)
        ]
        if not isinstance(cells[0], str) or not isinstance(cells[1], str | int):
            raise InputError(
                f"{path}: line {number} has the keys {', '.join(map(repr, row))}; expected a "
                "string 'text' (or 'sentence') and a 'label'."
            )
        rows.append(Example(cells[0], str(cells[1])))
    return rows


def _table_rows(path: Path, text: str) -> list[Example]:
    lines = io.StringIO(text, newline="")
    tabs = path.suffix == ".tsv"
    reader = csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
    try:
        table = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is not a row ({error}).") from error
    if not table:
        return []
    columns = len(table[0][1])
    for number, row in table:
        if len(row) != columns or columns < 2:
            raise InputError(
                f"{path}: line {number} has {len(row)} columns, expected "
                f"{max(columns, 2)}: a text and its label, separated by "
                f"{'a tab' if tabs else 'a comma'}."
            )
    head = [cell.strip().lower() for cell in table[0][1]]
    texts = [i for i, name in enumerate(head) if name in _TEXT_COLUMNS]
    labels = [i for i, name in enumerate(head) if name in _LABEL_COLUMNS]
    if texts and labels:
        table = table[1:]
    else:
        cells = list(zip(*(row for _, row in table), strict=True))
        labels = sorted(
            range(columns),
            key=lambda i: (not all(c.isdecimal() for c in cells[i]), len(set(cells[i])), -i),
        )
        texts = sorted(labels[1:], key=lambda i: -sum(map(len, cells[i])))
    return [Example(row[texts[0]], row[labels[0]].strip()) for _, row in table]
