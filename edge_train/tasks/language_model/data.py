"""From what a user has to what training reads: texts or chats, kept as ids in the run folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.errors import InputError
from edge_train.formats.language_apart import keeps_apart
from edge_train.formats.language_folder import LanguageFolder
from edge_train.recipe import required
from edge_train.tasks.job import Say
from edge_train.tasks.language_model.chats import ChatColumns
from edge_train.tasks.language_model.documents import PIECE_BYTES, Texts, is_table, open_texts
from edge_train.tasks.language_model.example import example_of, words_of
from edge_train.tasks.language_model.kept import (
    IDS_FILE,
    Kept,
    Objective,
    about_of,
    keep,
    reopen,
    tenth_of_documents,
)
from edge_train.tasks.language_model.labels import LABELS, answers_in
from edge_train.tasks.language_model.marks import Marks, marks_of
from edge_train.tasks.language_model.packing import FEWEST, PackedDocuments
from edge_train.tasks.language_model.prompting import begin
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.language_model.token_stream import id_type, read_ids, write_ids
from edge_train.tasks.sources import check_candidates, sentence, source_numbers

_SLACK = 4  # letters that a tokenizer leaves out, beside those of its tokens
_PIECE_BEFORE = 1 << 20  # of runs whose data do not say in what pieces they were read
_DAY = "%Y-%m-%d"  # what templates that ask for the date were told


class Data:
    """The data of a run.

    Args:
      sha256: returns the hash of the model, which says whose ids these are.

    Attributes:
      notices: what the user should know of them, a line each.
      kept, task: from `prepare` or `restore` on.
    """

    kept: Kept
    task: Objective

    def __init__(
        self,
        recipe: LanguageModelRecipe,
        model: LanguageFolder,
        tokenizer: Tokenizer,
        sha256: Callable[[], str],
    ) -> None:
        self._recipe, self._model, self._tokenizer = recipe, model, tokenizer
        self._sha256 = sha256
        self.notices: list[str] = []

    def load(self) -> None:
        """Read the beginning of the data.

        Raises:
          InputError: they cannot be used, or are chats and the model has no template for them.
        """
        texts = self._open({})
        columns = texts.chats_found()
        only = self._needs_chats()
        if only and (columns is None or texts.together):
            raise InputError(
                f"{self._recipe.data}: {only} is for chats or prompts with completions, and the "
                "data are texts; name a table that has these columns."
            )
        if columns is not None:
            template = self._template(columns, datetime.now())
            if self._recipe.trainable == "prompt":
                begin(self._recipe, self._tokenizer, template, self._marks())

    def _needs_chats(self) -> str:
        """Return what of a recipe texts will not do for; nothing where they will."""
        if self._recipe.trainable == "prompt":
            return "a prompt that is learned"
        return "--loss-on labels" if self._recipe.loss_on == LABELS else ""

    def prepare(self, folder: Path, say: Say) -> None:
        """Write the ids of the data, and how they were made, for `restore`."""
        day = datetime.now().strftime(_DAY)
        now = {"begin": None, "halves": True, "day": day, "piece": PIECE_BYTES, "whole_notes": True}
        self._prepare(folder, say, now)

    def restore(self, folder: Path, say: Say) -> None:
        """Take what `prepare` wrote, or read the data again in the same way."""
        about = about_of(folder)
        try:
            self.kept = reopen(folder, self._model.vocabulary)
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"{folder / IDS_FILE}: cannot be used ({error}). Reading the data again.")
            if ("halves" not in about and "tokens" in about) or _is_day(about.get("day")):
                self._prepare(folder, say, about)
            else:
                self.load()
                self.prepare(folder, say)
        else:
            self.task = self.kept.objective(self._recipe)

    def most_bytes(self) -> int:
        """Return what the ids take at most: a token has a byte of the data or more."""
        try:
            path = Path(required(self._recipe.data)).expanduser()
            count = open_texts(path, self._recipe.text_column).size_bytes()
        except (OSError, InputError):
            return 0  # `load` says what is wrong with it
        return count * np.dtype(id_type(self._model.vocabulary)).itemsize

    def facts(self) -> Mapping[str, Any]:
        """Return what the report says of the data."""
        task = self.task
        names = self.kept.about.get("sources", ())
        sizes = dict(zip(names, task.source_sizes.tolist(), strict=True)) if names else {}
        sources = {"sources": sizes} if sizes else {}
        if not isinstance(task, PackedDocuments):
            return sources
        example = example_of(task, self._tokenizer)
        return {
            **sources,
            "documents": len(task.sizes),
            "counted_tokens": task.counted_tokens,
            "example": [[text, learned] for text, learned in example],
        }

    def _prepare(self, folder: Path, say: Say, about: Mapping[str, Any]) -> None:
        """Write what training reads of the data.

        Args:
          about: how; of a run of earlier code without `begin`, its data are one text without
            marks; without `halves`, texts whose documents are not kept apart; without
            `whole_notes`, notes of a folder with marks around each of their pieces.
        """
        texts = self._open(about)
        columns = texts.chats_found()
        if columns is None and not texts.together:
            self.kept = self._keep_texts(folder, texts, about, say)
        else:
            self.kept = self._keep_documents(folder, texts, columns, about, say)
        self.task = self.kept.objective(self._recipe)
        check_candidates(self._recipe, self.task.windows)
        if isinstance(self.task, PackedDocuments):
            self._say_documents(self.task, say)
        if names := self.kept.about.get("sources"):
            sizes = self.task.source_sizes.tolist()
            say(sentence(names, sizes))
            if gone := [name for name, size in zip(names, sizes, strict=True) if not size]:
                self._note(
                    f"source {gone[0]} has nothing to train on: all of it is held out; mix the "
                    "rows of the data"
                )

    def _open(self, about: Mapping[str, Any]) -> Texts:
        path = Path(required(self._recipe.data)).expanduser()
        whole = bool(about) and "begin" not in about
        earlier = bool(about) and "halves" not in about
        texts = open_texts(path, self._recipe.text_column, whole=whole, as_texts=earlier)
        texts.asked = self._recipe.sources
        texts.piece_bytes = _piece_of(about)
        texts.check()
        self._note(*texts.notices)
        return texts

    def _keep_texts(self, folder: Path, texts: Texts, about: Mapping[str, Any], say: Say) -> Kept:
        model, kind = self._model, id_type(self._model.vocabulary)
        whole = "begin" not in about
        marks = Marks() if whole else self._marks()
        written = write_ids(texts, marks, self._tokenizer, folder / IDS_FILE, kind)
        in_rows = any(map(is_table, texts.train)) and not whole
        self._note(*texts.notices, *([marks.said] if marks.said and in_rows else []))
        found: dict[str, Any] = {"model_sha256": self._sha256(), "piece": texts.piece_bytes}
        held, starts = written.held if texts.held else None, None
        if not whole:
            found |= {"begin": marks.begin, "end": marks.end}
        if "halves" in about:
            found |= {"halves": True, "day": about["day"]}
            if len(written.starts) > 1:
                held = held or tenth_of_documents(written.starts, written.ids)
                starts = written.starts if keeps_apart(model.config.get("model_type")) else None
                if starts is None:
                    self._note(self._not_apart("see each other in a sequence"))
        if not whole:
            found["held"] = held
        sources = self._sources(written.starts, written.sources, found)
        kept = keep(folder, model.vocabulary, found, starts, sources=sources)
        of = f" of {len(written.starts)} documents" if in_rows else ""
        part = "the last tenth held out" if held is None else f"the last {held} held out"
        say(f"{written.ids} tokens{of}, {part}; {self._recipe.length} in a sequence")
        return kept

    def _keep_documents(
        self,
        folder: Path,
        texts: Texts,
        columns: ChatColumns | None,
        about: Mapping[str, Any],
        say: Say,
    ) -> Kept:
        """Write chats, or the notes and chats of a folder, as documents."""
        from edge_train.tasks.language_model.chat_stream import write_chats
        from edge_train.tasks.language_model.passages import Reader

        model, kind, what = self._model, id_type(self._model.vocabulary), texts.what()
        template = None
        if columns is not None:
            template = self._template(columns, datetime.strptime(about["day"], _DAY))
        added = self._tokenizer.get_added_tokens_decoder().values()
        controls = [token.content for token in added if token.special]
        most = required(self._recipe.length) + 1
        letters = most * max(map(len, self._tokenizer.get_vocab()))
        marks, prompt = self._marks(), None
        if self._recipe.trainable == "prompt":
            prompt, place = begin(self._recipe, self._tokenizer, template, marks)
        whole = bool(about.get("whole_notes"))
        reader = Reader(
            template, self._recipe.loss_on, controls, _SLACK * letters, prompt, not whole
        )
        parts = [(reader.all_passages(texts, texts.train), False)]
        if texts.held:
            parts.append((reader.all_passages(texts, texts.held), True))
        out = folder / IDS_FILE
        written = write_chats(parts, marks, self._tokenizer, out, kind, most)
        self._note(*texts.notices)
        read = len(written.lengths)
        lengths = np.sort(np.array(written.lengths, np.int64))
        usable = len(written.starts) - 1
        if written.unanswered and usable < FEWEST and not (usable and texts.held):
            own = f", {len(prompt.ids)} of them the learned prompt's" if prompt is not None else ""
            more = f"a --length of up to {model.positions}, or " if model.positions >= most else ""
            many = f"in {written.unanswered}" if usable else "in any"
            left = f", and the {usable} that are left are too few" if usable else ""
            raise InputError(
                f"{self._recipe.data}: no answer begins within {most} tokens {many} of {read} "
                f"{what}{left} (the shortest has {lengths[0]}{own}); use {more}shorter ones."
            )
        if written.cut:
            self._note(
                f"{written.cut} of {read} {what} have more than {most} tokens and lose "
                f"their end; --length {min(int(lengths[-1]) - 1, model.positions)} keeps more"
            )
        if written.unanswered:
            self._note(
                f"{written.unanswered} of {read} {what} are left out: no answer begins "
                f"within {most} tokens"
            )
        if reader.reads_no_tools and texts.tools:
            self._note(
                f"{texts.tools} of {read} {what} name tools, which the model's chat "
                "template does not write"
            )
        if not (apart := keeps_apart(model.config.get("model_type"))):
            self._note(self._not_apart("are not packed: each is in a sequence of its own"))
        found = {
            "model_sha256": self._sha256(),
            "piece": texts.piece_bytes,
            "begin": marks.begin,
            "end": marks.end,
            "chats": True,
            "halves": True,
            "apart": apart,
            "whole_notes": whole,
            "new_line": written.new_lines[True] > written.new_lines[False],
            "day": about["day"],
            "held": written.held if texts.held else None,
        }
        if read:
            say(
                f"{read} {what} of {lengths[0]} / {lengths[read // 2]} / {lengths[-1]} "
                "tokens (shortest, median, longest)"
            )
        counted = written.counted if reader.counts_answers else None
        sources = self._sources(written.starts[:-1], written.sources, found)
        ids, starts = read_ids(out, kind), np.array(written.starts, np.int64)
        if prompt is not None:
            prompt.check(ids, starts, self._recipe.data)
            found["prompt"] = {**asdict(prompt), "place": asdict(place)}
        if self._recipe.loss_on == LABELS:
            ranges = np.array(counted or (), np.int64).reshape(-1, 2)
            answers = answers_in(ids, starts, ranges, self._recipe.data, written.shortened)
            found["labels"] = list(answers.firsts)
            words = map(self._tokenizer.decode, answers.firsts.values())
            found["answers"] = [one.strip() for one in words]
            if answers.cut:
                self._note(
                    f"{answers.cut} of {read} {what} keep only the beginning of their answer and "
                    "count as the one that begins so"
                )
        return keep(folder, model.vocabulary, found, written.starts, counted, sources)

    def _sources(
        self, starts: Sequence[int], names: Sequence[str], about: dict[str, Any]
    ) -> NDArray[np.int64] | None:
        """Return where documents begin and their sources, whose names go into what is kept."""
        if self._recipe.sources is None:
            return None
        numbers, about["sources"] = source_numbers(names)
        return np.stack([np.array(starts, np.int64), numbers], axis=1)

    def _say_documents(self, task: PackedDocuments, say: Say) -> None:
        train, choose, report = map(len, task.parts)
        rows = len(task.rows[0])
        full = task.sizes[task.parts[0]].sum() / (rows * (task.length + 1))
        say(
            f"{train} to train on, {choose} to choose the best weights by, {report} to report on; "
            f"{len(task.ids)} tokens, {task.counted_tokens} of them learned (loss_on "
            f"{self._recipe.loss_on}); {rows} sequences of {task.length}, {full:.0%} full"
        )
        say(f"the first, what is learned in [[ ]]: {words_of(example_of(task, self._tokenizer))}")

    def _template(self, columns: ChatColumns, day: datetime) -> Any:
        """Return the template of the model; None where it has none and needs none.

        Raises:
          InputError: the data are chats, and it has none.
          ModelError: it cannot be read.
        """
        from edge_train.formats.chat_template import chat_template_of
        from edge_train.tasks.language_model.passages import refuse_chats

        template = chat_template_of(self._model, day)
        if template is None and columns.messages is not None:
            raise refuse_chats(self._model)
        return template

    def _marks(self) -> Marks:
        return marks_of(self._tokenizer, self._model.config, self._model.path)

    def _not_apart(self, what: str) -> str:
        kind = self._model.config.get("model_type")
        return f"documents {what}, since a {str(kind)[:40]!r} is not known to keep them apart"

    def _note(self, *lines: str) -> None:
        self.notices += [line for line in lines if line not in self.notices]


def _piece_of(about: Mapping[str, Any]) -> int:
    """Return in what pieces texts are read: as before in a run that began so."""
    found = about.get("piece", _PIECE_BEFORE) if about else PIECE_BYTES
    return _PIECE_BEFORE if found == _PIECE_BEFORE else PIECE_BYTES


def _is_day(value: Any) -> bool:
    try:
        return bool(datetime.strptime(value, _DAY))
    except (TypeError, ValueError):
        return False
