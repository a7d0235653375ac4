"""The job of a search over one's own documents: documents in; head, index and scores out."""

import math
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import Folded, folded, operations, shapes_of
from edge_train.arrays.types import Array, Point
from edge_train.errors import RunFolderError
from edge_train.export.head_files import write_head
from edge_train.formats.tensor_store import sha256_of
from edge_train.formats.tokenizer_files import open_with_size
from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    PlanLine,
    folder_lines,
    state_line,
)
from edge_train.memory.machine import cores
from edge_train.memory.measure import give_back_memory
from edge_train.methods import held_at_once, methods
from edge_train.methods.method import Parts
from edge_train.protocols import Estimator, Transform
from edge_train.recipe import required
from edge_train.runtimes.numpy.late_interaction import LateInteraction
from edge_train.runtimes.token_vectors import WINDOW_BYTES
from edge_train.tasks.device import FEATURES_ALONE, features_device
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.retrieve import TASK
from edge_train.tasks.retrieve.corpus import OUTPUTS, TEXTS, Builder, Corpus, load_corpus
from edge_train.tasks.retrieve.documents import Collection, Columns, read_collection
from edge_train.tasks.retrieve.encoding import (
    PER_CALL,
    TOGETHER,
    TOKENS_PER_CALL,
    Encoding,
    open_engine,
)
from edge_train.tasks.retrieve.index import write_index
from edge_train.tasks.retrieve.judged import judged
from edge_train.tasks.retrieve.model import FIXED, check_fixed, engine_of, length_of, open_model
from edge_train.tasks.retrieve.objective import FindPassage
from edge_train.tasks.retrieve.passages import Reader
from edge_train.tasks.retrieve.recipe import RetrieveRecipe
from edge_train.tasks.tokenizer_line import with_tokenizer

INDEX_FOLDER, HEAD_FOLDER = "index", "head"
_COPIES = 4  # of the head in float32: live, gradient, update, what is being written
_REHEARSED_CALLS = 2
_CHARACTERS = 3  # of a token, at least; English has more
_TEXT_COPIES = 4  # of the texts in Python's strings: as read, in passages, one being written
_KEPT_TOKENS = 1024  # that the head keeps what it needs of, and its gradients
_INDEXED_BYTES = 110_000_000  # the sample and its products with centroids
_TOKENS_AT_ONCE = 2048


class RetrieveJob:
    """A `Job`: words are checked here, documents are read by `load`, encoded by `prepare`.

    Raises:
      InputError, ModelError: a word, file or model that cannot be used.
    """

    def __init__(self, recipe: RetrieveRecipe) -> None:
        self._model = open_model(recipe)
        check_fixed(recipe)
        engine = engine_of(recipe, self._model)
        device = features_device(recipe.device, "retrieve", engine)
        resolved = TASK.resolve(recipe, engine, {"threads": cores()})
        length = length_of(recipe, self._model)
        self.recipe = replace(resolved, **FIXED, device=device, runtime=engine, length=length)
        tokenizer, self._tokenizer_size = open_with_size(self._model.path, self._model.vocabulary)
        give_back_memory()  # what was only there to read it
        self._reader = Reader(tokenizer, length)
        self.notes: tuple[str, ...] = (FEATURES_ALONE,) if device == "cuda" else ()
        self.name = f"retrieve-{Path(required(self.recipe.data)).stem}"
        self._rehearsed: int | None = None
        self._found: Collection
        self._corpus: Corpus

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the encoder, as its engine reads it."""
        return self._model.sha256(self.recipe.runtime)

    @property
    def _outputs(self) -> int:
        return min(OUTPUTS, self._model.width)

    def judge_less(self) -> None:
        """Encode a few texts for all: as many bytes, fewer passes."""
        self._rehearsed = _REHEARSED_CALLS

    def footprint(self) -> Footprint:
        return with_tokenizer(self._footprint(), self._tokenizer_size)

    def _footprint(self) -> Footprint:
        recipe, width = self.recipe, self._model.width
        job = copy(self)
        job.load()  # what is held depends on the texts; gone when this returns
        characters = sum(len(d.title) + len(d.text) for d in job._found.documents)
        tokens = characters // _CHARACTERS + 1
        length = required(recipe.length)
        passages = tokens // (length // 2) + len(job._found.documents)
        shapes = shapes_of(recipe.projection, width, self._outputs)
        items = sum(map(math.prod, shapes.values()))
        transform = self.method(1.0, dict.fromkeys(shapes, 1.0))[1]
        held = held_at_once(recipe)
        stored = tokens * (width + 4)
        index = tokens * (2 + self._outputs)
        encoder = PlanLine("encoder", self._model.model_bytes(recipe.runtime))
        texts = PlanLine("texts and words", characters * (_TEXT_COPIES + 2))
        arrays = PlanLine("passages and queries", passages * 400)
        mapped = PlanLine("token vectors, mapped", min(stored, WINDOW_BYTES))
        head = PlanLine("weights", 4 * items)
        state = state_line(transform, shapes, _COPIES, held)
        use = TASK.use(recipe.runtime)
        negatives = 1 + recipe.negatives
        compared = required(recipe.samples) * (negatives * length + length // 4)
        inner = max(max(shape) for shape in shapes.values())
        step = 4 * (4 * _KEPT_TOKENS * inner + 5 * items + 4 * compared * self._outputs)
        texts_at_once = max(1, min(recipe.batch_limit or PER_CALL, TOKENS_PER_CALL // length))
        encoded = 4 * texts_at_once * length * (14 * width + 40 * length)
        encoded += TOGETHER * length * (width + 4) * 2
        per_text = operations(recipe.projection, recipe.activation, width, self._outputs)
        own = max(1, negatives * length * per_text)
        of_encoder = 2.0 * length * self._model.model_bytes(recipe.runtime) / 8
        return Footprint(
            use.libraries,
            encoder.bytes,
            {
                PREPARE: (encoder, texts, arrays),
                TRAIN: (arrays, mapped, head, state),
                SAVE: (arrays, mapped, head),
            },
            {PREPARE: encoded, TRAIN: step, SAVE: _INDEXED_BYTES + 64 * passages},
            use.first_use_bytes,
            use.libraries_bytes,
            operations=own,
            products=negatives,
            together=required(recipe.samples),
            before=int(passages * of_encoder / own),
            after=passages,
            trained=items,
            folder=folder_lines(
                len(shapes),
                4 * items,
                state_line(transform, shapes, 0, held).bytes,
                stored + 2 * characters + passages * 300,
                12 * items + index,
                index,
            ),
        )

    def load(self) -> None:
        recipe = self.recipe
        asked = Columns(recipe.text_column, recipe.title_column, recipe.query_column)
        self._found = read_collection(Path(required(recipe.data)).expanduser(), asked)
        self._say_once(*self._found.notices)

    def prepare(self, folder: Path, say: Say) -> None:
        recipe, model = self.recipe, self._model
        place = folder / INDEX_FOLDER
        place.mkdir(exist_ok=True)
        encoder = open_engine(model, recipe.runtime, required(recipe.threads), recipe.device)
        per_call = min(recipe.batch_limit or PER_CALL, PER_CALL)
        encoding = Encoding(
            encoder, self._reader, model.pad, model.width, per_call, self._rehearsed
        )
        builder = Builder(
            self._found,
            self._reader,
            encoding,
            place,
            folder,
            recipe.train_on,
            recipe.projection,
            recipe.seed,
            say,
        )
        try:
            self._corpus = builder.build()
        finally:
            encoder.close()
        self._say_once(*builder.notices)
        self._corpus.save(folder, {"model_sha256": self.model_sha256})
        self._found = Collection()  # its passages are in a file by now

    def restore(self, folder: Path, say: Say) -> None:
        try:
            self._corpus = load_corpus(folder, folder / INDEX_FOLDER)
        except RunFolderError as error:
            say(f"{error} Reading the documents again.")
            self.load()
            self.prepare(folder, say)

    def data_sha256(self) -> str:
        kept = {
            **self._corpus.tensors(),
            "tokens": np.frombuffer(self._corpus.token_sum.encode(), np.uint8),
        }
        return sha256_of(kept)

    def open_runtime(self) -> LateInteraction:
        recipe, corpus = self.recipe, self._corpus
        return LateInteraction(
            corpus.vectors(),
            corpus.owners,
            corpus.titles,
            corpus.start,
            kind=recipe.projection,
            activation=recipe.activation,
            temperature=recipe.temperature,
        )

    def task(self) -> FindPassage:
        recipe, corpus = self.recipe, self._corpus
        return FindPassage(
            corpus.train,
            corpus.dev,
            corpus.passages,
            required(recipe.samples),
            recipe.negatives,
            required(recipe.evaluation_samples),
        )

    def smallest_radius(self) -> float:
        return 0.0  # float weights and activations

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        return build(self.recipe, Parts(epsilon=epsilon, scale=scale))

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe, corpus = self.recipe, self._corpus
        return {
            "data": recipe.data,
            "documents": int(corpus.owners.max()) + 1,
            "passages": corpus.passages,
            "tokens": int(corpus.starts[-1]),
            "queries": {"train": len(corpus.train), "dev": len(corpus.dev)},
            "length": recipe.length,
            "projection": recipe.projection,
            "negatives": recipe.negatives,
            "samples": recipe.samples,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
        }

    def preview(self, folder: Path, step: int, runtime: LateInteraction) -> str | None:
        return None

    def finish(
        self, folder: Path, runtime: LateInteraction, best: Point, steps: int, whole: bool
    ) -> Outcome:
        recipe, corpus = self.recipe, self._corpus
        write_head(folder / HEAD_FOLDER, recipe.projection, recipe.activation, dict(best))
        outputs = {"head": HEAD_FOLDER}
        if not whole:
            return Outcome(outputs=outputs)
        head = runtime.head(best)
        source = _Indexed(runtime, head, corpus.passages)
        size = write_index(
            folder / INDEX_FOLDER,
            source,
            runtime.counts(corpus.passages),
            corpus.owners,
            corpus.lines,
            head,
            self.model_sha256,
        )
        start = folded(recipe.projection, recipe.activation, corpus.start)
        metrics = judged(corpus, runtime, start, head, folder / INDEX_FOLDER / TEXTS)
        line = (
            f"nDCG@10 of {metrics['scored_queries']} {metrics['scored_on']} queries: "
            f"{metrics['ndcg_at_10']:.3f}, {metrics['ndcg_at_10_before']:.3f} before training, "
            f"{metrics['ndcg_at_10_bm25']:.3f} by words alone (BM25); ask it: edge-train search "
            f'{folder} "..."'
        )
        return Outcome({**metrics, "index_bytes": size}, {**outputs, "index": INDEX_FOLDER}, line)

    def _say_once(self, *lines: str) -> None:
        self.notes = tuple(dict.fromkeys((*self.notes, *lines)))


class _Indexed:
    """The passages of a run as an index reads them."""

    def __init__(self, runtime: LateInteraction, head: Folded, passages: int) -> None:
        self._runtime, self._head, self._passages = runtime, head, passages

    def tokens(self, first: int, last: int) -> tuple[Array, NDArray[np.int64]]:
        found = self._runtime.passages(first, last, self._head)
        return found.values, found.starts

    def runs(self) -> Iterator[tuple[int, int]]:
        return self._runtime.runs(self._passages, _TOKENS_AT_ONCE)
