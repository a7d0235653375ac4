"""What a language is learned from: a long text, rows of a table, chats, or a folder of all."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.left_aside import lines_of
from edge_train.formats.tables.coding import Coding, coding_of, kind_of, opened, opened_text
from edge_train.formats.tables.names import KNOWN, TEXT_FLAG, TEXTS, text_of, text_place
from edge_train.formats.tables.splits import beside, entries, in_parts, part_of, splits_of
from edge_train.formats.tables.table import DELIMITED, PARQUET, RECORDS, Table, open_table
from edge_train.formats.tables.wrong import Wrong
from edge_train.tasks.language_model.chats import NAMES, Chat, ChatColumns, WrongChat, chat_columns
from edge_train.tasks.sources import FILES, SOURCES_FLAG
from edge_train.units import shown

PIECE_BYTES = 1 << 16  # of text in memory at once; a piece ends with a line
_TABLES = tuple(kind for kind in (*RECORDS, PARQUET, *DELIMITED) if kind != ".txt")
_SPLIT_KINDS = (*_TABLES, ".txt", ".text", ".md")
_TOGETHER = "notes and chats"  # what a folder of files without parts is called
_UNPACKED = 10  # times the size of a packed text
_BYTE_WISE = ("utf-8-sig", "cp1252")  # codings whose lines end with the byte of a new line


@dataclass
class Texts:
    """What `--data` names: files to train on and, where a folder has them, files to hold out.

    Attributes:
      column: of texts, as a user named it.
      as_texts: rows are texts whatever their columns are, as earlier versions read them.
      together: every file of a folder is read, each note as a document: chats first, whose
        answers are learned, then what is learned whole.
      tools: chats that name some, of those that were read.
      asked: a column of sources, or `files`; None: they are not told apart.
      source: of the document that was yielded last.
      piece_bytes: how many of a text become tokens at once; the tokenizer holds 200 for each.
      notices: what a user should know of how they were read and what was left out, a line each;
        those of wrong rows only after the texts were read.
    """

    train: tuple[Path, ...]
    held: tuple[Path, ...]
    column: str | None
    notices: list[str] = field(default_factory=list)
    as_texts: bool = False
    together: bool = False
    tools: int = 0
    asked: str | None = None
    source: str = ""
    piece_bytes: int = PIECE_BYTES

    def chats(self, files: tuple[Path, ...]) -> Iterator[tuple[Wrong, int, Chat]]:
        """Yield every chat, with the number of its row and where to say what is wrong with it.

        Raises:
          InputError: a file cannot be read to its end, holds no chats, or mostly wrong ones.
        """
        for path in files:
            table = self._table(path)
            if (columns := self._chat_columns(table)) is None:
                raise InputError(
                    f"{path}: has no column of chats, but {self.train[0].name} has; it has "
                    f"{table.names()}."
                )
            for line in table.said:
                self._say(line)
            place = self._source_place(table)
            for number, row in table.rows():
                self.source = path.name if place is None else text_of(row[place]) or ""
                try:
                    chat = columns.chat(row)
                except WrongChat as error:
                    table.wrong.add(number, str(error))
                else:
                    self.tools += bool(chat.tools)
                    yield table.wrong, number, chat
            table.wrong.check(_texts_instead(table))
            self._say(table.wrong.sentence())

    def chats_found(self) -> ChatColumns | None:
        """Return where the first file has its chats, None where the data are texts.

        Raises:
          InputError: it cannot be read.
        """
        return self.chats_of(self.train[0])

    def chats_of(self, path: Path) -> ChatColumns | None:
        """Return where a file has its chats, None where it holds texts.

        Raises:
          InputError: it cannot be read.
        """
        return self._chat_columns(self._table(path)) if is_table(path) else None

    def what(self) -> str:
        """Return what its documents are called."""
        columns = self.chats_found()
        return _TOGETHER if self.together or columns is None else columns.what

    def documents(self, files: tuple[Path, ...]) -> Iterator[tuple[str, bool, bool]]:
        """Yield a piece of text, whether a document begins with it, and whether one ends.

        A text file is one document that never ends; a row of a table is a whole one. Pieces end
        with a line, so that tokens seldom run over two.

        Raises:
          InputError: a file cannot be read to its end.
        """
        for path in files:
            if is_table(path):
                yield from self._rows(path)
            else:
                coding = coding_of(path)
                self._say(coding.said)
                self.source = path.name
                for number, piece in enumerate(_pieces(path, coding, self.piece_bytes)):
                    yield piece, number == 0, False

    def size_bytes(self) -> int:
        """Return the size of the texts, unpacked; of packed ones a guess, and seldom too small.

        Raises:
          OSError: a file is not there.
        """
        files = (*self.train, *self.held)
        return sum(path.stat().st_size * (_UNPACKED if is_packed(path) else 1) for path in files)

    def check(self) -> None:
        """Refuse files that cannot be read, by their beginning.

        Raises:
          InputError: as described.
        """
        for path in (*self.train, *self.held):
            if is_table(path):
                table = self._table(path)
                self._source_place(table)
                if self._chat_columns(table) is None:
                    text_place(table, self.column)
            elif self.asked not in (None, FILES):
                raise InputError(
                    f"{path}: is one text without columns, and sources is {shown(self.asked)}; "
                    f"use {SOURCES_FLAG} {FILES}, or leave it out."
                )
            else:
                next(_pieces(path, coding_of(path), self.piece_bytes))

    def has_texts(self, path: Path) -> bool:
        """Return whether a table has a column of texts."""
        try:
            text_place(self._table(path), self.column)
        except InputError:
            return False
        return True

    def _table(self, path: Path) -> Table:
        source = None if self.asked == FILES else self.asked
        known = KNOWN if self.as_texts else KNOWN | NAMES
        return open_table(path, known, (self.column, source))

    def _source_place(self, table: Table) -> int | None:
        """Return the column of sources, None where a file is one."""
        return None if self.asked in (None, FILES) else table.place(str(self.asked), SOURCES_FLAG)

    def _chat_columns(self, table: Table) -> ChatColumns | None:
        return None if self.as_texts or self.column is not None else chat_columns(table)

    def _opened(self, path: Path) -> tuple[Table, int]:
        table = self._table(path)
        return table, text_place(table, self.column)

    def _rows(self, path: Path) -> Iterator[tuple[str, bool, bool]]:
        table, place = self._opened(path)
        of = self._source_place(table)
        for line in table.said:
            self._say(line)
        for number, row in table.rows():
            self.source = path.name if of is None else text_of(row[of]) or ""
            text = text_of(row[place])
            if text is None:
                table.wrong.add(number, "has no text")
                continue
            pieces = list(_cut(text, self.piece_bytes))
            for at, piece in enumerate(pieces):
                yield piece, at == 0, at == len(pieces) - 1
        table.wrong.check()
        self._say(table.wrong.sentence())

    def _say(self, line: str) -> None:
        if line and line not in self.notices:
            self.notices.append(line)


def _texts_instead(table: Table) -> str:
    """Return what reads the texts of a table that has chats, too; empty where it has none."""
    found = table.among(TEXTS)
    name = f"{TEXT_FLAG} {table.columns[found[0]]}" if found else ""
    return f"; {name} takes its texts, and none of its chats" if name else ""


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its name; any other is one text."""
    return kind_of(path) in _TABLES


def is_packed(path: Path) -> bool:
    """Return whether a file is smaller than the text that it holds."""
    return path.suffix.lower() == ".gz" or kind_of(path) == PARQUET


def open_texts(
    path: Path, column: str | None, *, whole: bool = False, as_texts: bool = False
) -> Texts:
    """Return the texts of a file, or of the train and dev files of a folder.

    Args:
      column: of texts in a table, as a user named it.
      as_texts: rows are texts whatever their columns are.
      whole: one file is one text whatever its name says, as earlier versions read it.

    Raises:
      InputError: a folder has no training file, or there is no table that has the column.
    """
    if whole:
        return _Whole((path,), (), None)
    if path.is_dir() and (found := entries(path, _SPLIT_KINDS))[0] and _is_together(path, found[0]):
        texts = _together(path, found, column, as_texts)
    elif path.is_dir():
        splits = splits_of(path, _SPLIT_KINDS)
        said = list(splits.said)
        if test := splits.files.get("test"):
            said.append(f"{test[0].name} is not used: task language-model holds out the dev file")
        texts = Texts(splits.files["train"], splits.files.get("dev", ()), column, said, as_texts)
    else:
        texts = Texts((path,), (), column, as_texts=as_texts)
        if unused := beside(path, _SPLIT_KINDS):
            verb = "is" if len(unused) == 1 else "are"
            texts.notices.append(
                f"{' and '.join(file.name for file in unused)} beside {path.name} {verb} not used; "
                f"--data {path.parent} uses the folder"
            )
    if column is not None and not any(map(is_table, texts.train)):
        raise InputError(
            f"text_column is set, but {texts.train[0]} is one text without columns; leave it out."
        )
    return texts


def _is_together(folder: Path, files: list[Path]) -> bool:
    """Return whether the files of a folder are no parts of one data set, and several."""
    held = any(is_table(path) and part_of(path) is not None for path in files)
    return len(files) > 1 and not held and not in_parts(folder, _SPLIT_KINDS)


def _together(
    folder: Path, found: tuple[list[Path], dict[Path, str]], column: str | None, as_texts: bool
) -> Texts:
    """Return the notes and chats of a folder, and what of it is left aside.

    Raises:
      InputError: a table cannot be read, or there is nothing to learn from.
    """
    files, others = found
    aside = {path.name: why for path, why in others.items()}
    aside |= {path.name: "a folder inside" for path in sorted(folder.iterdir()) if path.is_dir()}
    texts = Texts((), (), column, as_texts=as_texts, together=True)
    chats, notes = [], []
    for path in files:
        if not path.stat().st_size:
            aside[path.name] = "empty"
        elif texts.chats_of(path) is not None:
            chats.append(path)
        elif not is_table(path) or texts.has_texts(path):
            notes.append(path)
        else:
            aside[path.name] = "no column of chats or texts"
    texts.train = (*chats, *notes)
    texts.notices += lines_of(aside)
    if not texts.train:
        raise InputError(f"{folder}: no file in it holds notes or chats; name one: --data FILE.")
    return texts


class _Whole(Texts):
    """One text without marks, whatever it holds."""

    def documents(self, files: tuple[Path, ...]) -> Iterator[tuple[str, bool, bool]]:
        for path in files:
            for piece in _pieces(path, Coding("utf-8-sig"), self.piece_bytes):
                yield piece, False, False

    def check(self) -> None:
        next(_pieces(self.train[0], Coding("utf-8-sig"), self.piece_bytes))


def _pieces(path: Path, coding: Coding, size: int) -> Iterator[str]:
    """Yield a text in pieces that end with a line.

    Args:
      size: of a piece in bytes, without the rest of its last line; twice that at most.

    Raises:
      InputError: the file is missing, empty, binary or in another coding further on.
    """
    some = False
    if coding.name not in _BYTE_WISE:
        with opened_text(path, coding) as text:
            while words := text.read(size) + text.readline(size):
                some = True
                yield words
    else:
        decoder = codecs.getincrementaldecoder(coding.name)()
        offset = 0
        with opened(path) as file:
            try:
                while piece := file.read(size) + file.readline(size):
                    some = True
                    yield decoder.decode(piece)
                    offset += len(piece)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: byte {offset + error.start} is not UTF-8; save the file as UTF-8 "
                    "text."
                ) from error
    if not some:
        raise InputError(f"{path}: the file is empty; name a text.")


def _cut(text: str, size: int) -> Iterator[str]:
    """Yield a document in pieces that end with a line, or with a word where lines are long."""
    start = 0
    while len(text) - start > size:
        end = max(text.rfind("\n", start, start + size) + 1, 0)
        end = end or text.rfind(" ", start, start + size)
        end = end if end > start else start + size
        yield text[start:end]
        start = end
    yield text[start:]
