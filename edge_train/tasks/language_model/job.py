"""The job of training a language model: a text in, a model folder and its perplexity out."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_train.arrays.types import Point
from edge_train.errors import InputError, ModelError
from edge_train.estimators.remembering import Remembering
from edge_train.export.difference import (
    DIFFERENCE_FOLDER,
    check_rank,
    rows_of,
    write_difference,
)
from edge_train.export.language_files import write_language_model
from edge_train.export.result_texts import in_float32, write_made, write_texts
from edge_train.formats.adapter import Adapter, write_adapter
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.gguf.model import is_gguf, open_gguf
from edge_train.formats.hub import find_folder
from edge_train.formats.language_folder import LanguageFolder, open_language_model
from edge_train.formats.language_shapes import heads_of, shapes_in_files
from edge_train.formats.model_texts import model_texts
from edge_train.formats.prompt_words import PromptWords
from edge_train.formats.stored_blocks import plain
from edge_train.formats.tensor_store import sha256_of
from edge_train.memory.footprint import Footprint
from edge_train.memory.machine import cores
from edge_train.memory.measure import give_back_memory
from edge_train.memory.processor import multiplies_bfloat16
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.optim.low_rank import is_embedding
from edge_train.protocols import Estimator, Transform
from edge_train.recipe import required
from edge_train.tasks.dropout import notes_of
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.language_model import TASK
from edge_train.tasks.language_model.adapter_footprint import adapter_footprint, leaves_gguf
from edge_train.tasks.language_model.adapting import (
    ADAPTER_FOLDER,
    Start,
    is_adapting,
    recorded,
    settled,
    start_of,
    with_defaults,
)
from edge_train.tasks.language_model.continuing import WRITTEN, write_continuation
from edge_train.tasks.language_model.data import Data
from edge_train.tasks.language_model.ends import ends_of
from edge_train.tasks.language_model.engine import device_for, dtype_for, engine_for
from edge_train.tasks.language_model.footprint import footprint_of, held_as
from edge_train.tasks.language_model.halves import MOST_SCORED
from edge_train.tasks.language_model.kept import Objective
from edge_train.tasks.language_model.labels import LABELS, MOST_JUDGED, check_labels
from edge_train.tasks.language_model.opening import open_engine
from edge_train.tasks.language_model.prompt_run import PromptRun, check_engine
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.language_model.scores import scores_of
from edge_train.tasks.sources import check_sources
from edge_train.tasks.tokenizer_line import with_tokenizer

_MODEL_FOLDER = "model"
_NO_FILE_OF_DORA = (
    "llama.cpp has no adapters of DoRA, so none is written for it; afterwards `edge-train export "
    "RUN OUT.gguf --to merged-gguf` writes the whole model with it"
)
_FEW_WRITTEN = 2  # tokens of a rehearsal: one after what was read, one by what was kept
_STEPS_FOR_ONE = 40  # of zo at its default rate for one of AdamW: `edge-train bench forward-only`
_MOST_TOKENS = 256  # of a sequence, unless the recipe says otherwise
_TEXTS_BYTES = 40_000_000  # beside the weights of a model that is one file; Gemma's has the most


class LanguageModelJob:
    """A `Job`: its words are checked here, the text is tokenized by `prepare`.

    Raises:
      InputError, ModelError: a word, file or model that cannot be used.
    """

    def __init__(self, recipe: LanguageModelRecipe) -> None:
        self._model = _open_model(recipe)
        length = min(_MOST_TOKENS, self._model.positions)
        recipe = settled(recipe, self._model)
        check_sources(recipe)
        check_labels(recipe)
        adapts = is_adapting(recipe)
        engine = engine_for(recipe, self._model)
        device, why_there = device_for(recipe, engine, self._model)
        dtype = dtype_for(recipe, engine, device)
        own: dict[str, Any] = {"rank": recipe.rank, "targets": recipe.targets}
        if adapts:  # rules have keys of these names, too
            recipe = with_defaults(replace(recipe, rank=None, targets=None))
        found = TASK.resolve(
            recipe,
            engine,
            {"threads": cores(), "length": length},
            pretrained=bool(self._model.files),
        )
        hidden = not adapts and not held_as(found.quant).shows_values
        if methods.get(found.method).perturbs and hidden and found.weight_decay:
            raise InputError(
                f"weight_decay reads weights, which {found.quant} ones do not show to method "
                "'zo'; leave it out, or use --quant none."
            )
        self.recipe = replace(found, device=device, dtype=dtype)
        least = required(self.recipe.declared()["length"].low)
        if self._model.positions < least:
            raise ModelError(
                f"{self.recipe.model}: has positions for {self._model.positions} tokens, and a "
                f"sequence needs {least:g}; copy or download the model again."
            )
        if required(self.recipe.length) > self._model.positions:
            raise InputError(
                f"length is {self.recipe.length}, but the model has {self._model.positions} "
                f"positions; use at most {self._model.positions}."
            )
        self._tokenizer, self._tokenizer_size = self._model.tokenizer_with_size()
        give_back_memory()  # what was only there to read it
        self._start: Start | None = None
        if adapts:
            sha256 = self.model_sha256 if recipe.start is not None else ""
            self.recipe = replace(self.recipe, **own)
            self._start = start_of(self.recipe, self._model, sha256)
            self.recipe = recorded(self.recipe, self._start.adapter)
        else:
            _check_rank(self.recipe, self._shapes)
        if (rank := self.recipe.difference_rank) is not None:
            if not self._model.files:
                raise InputError(
                    f"difference_rank asks for what changed, but {recipe.model} holds no weights "
                    "to compare with; leave it out."
                )
            check_rank(rank, self._shapes)
        self.notes: tuple[str, ...] = ()
        if not self._model.files:
            self.notes = (
                f"{recipe.model} holds no weights: it starts from random ones (seed "
                f"{self.recipe.seed})",
            )
        if why_there:
            self.notes += (why_there,)
        if self.recipe.difference_rank is not None:
            self.notes += (f"the adapter will name its base as {self._model.base}",)
        if self.recipe.trainable == "dora" and self._model.made:
            self.notes += (_NO_FILE_OF_DORA,)
        if dtype == "bfloat16" and device == "cpu" and multiplies_bfloat16() is False:
            self.notes += (
                "this processor has no products of bfloat16, so they take longer than float32's",
            )
        if (
            adapts
            and methods.get(self.recipe.method).perturbs
            and self.recipe.trainable != "prompt"
        ):
            alike = max(1, required(self.recipe.steps) // _STEPS_FOR_ONE)
            self.notes += (
                f"by forward passes alone, {self.recipe.steps} steps learn about what {alike} of "
                "exact gradients do (docs/methods.md)",
            )
        self.notes += notes_of(self._model.path, self._model.config, self.recipe.dropout)
        self.name = f"language-{Path(required(self.recipe.data)).stem}"
        self._data = Data(self.recipe, self._model, self._tokenizer, lambda: self.model_sha256)
        self._scored, self._written = MOST_SCORED, WRITTEN
        self._labeled = MOST_JUDGED
        self._prompt: PromptRun | None = None
        if self.recipe.trainable == "prompt":
            check_engine(self.recipe)
            self._prompt = PromptRun(self.recipe, self._model, self._tokenizer, lambda: self._data)

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the model's configuration and weights."""
        return self._model.sha256()

    def is_model(self, sha256: str) -> bool:
        return self._model.is_known_as(sha256)

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        known = shapes_in_files(self._model)
        if known is not None:
            return known
        from edge_train.runtimes.torch.language_network import parameter_shapes

        return parameter_shapes(self._model)

    @property
    def adapter(self) -> Adapter | None:
        """What is trained, None where all weights are."""
        return None if self._start is None else self._start.adapter

    @property
    def prompt_words(self) -> PromptWords:
        """What a searched prompt is made of; of a run that learns one, once its data are read."""
        assert self._prompt is not None
        return self._prompt.words

    @property
    def prompt_start(self) -> tuple[int, ...]:
        """The tokens that a learned prompt begins as, likewise."""
        assert self._prompt is not None
        return self._prompt.start.ids

    def footprint(self) -> Footprint:
        return with_tokenizer(self._footprint(), self._tokenizer_size)

    def _footprint(self) -> Footprint:
        _, transform = self.method(0.1, {})
        if self._start is not None:
            return adapter_footprint(
                self.recipe,
                self._model,
                self._shapes,
                self._start.adapter,
                transform,
                text_bytes=self._data.most_bytes(),
                opened=self._opened,
                prompt=None if self._prompt is None else self._prompt.shape(self._shapes),
            )
        return footprint_of(
            self.recipe,
            self._model,
            self._shapes,
            transform,
            text_bytes=self._data.most_bytes(),
            result_bytes=self._result_bytes(),
            opened=self._opened,
        )

    @property
    def _opened(self) -> str:
        """Why the network had to be opened to know its blocks; empty where its files tell."""
        if shapes_in_files(self._model) is not None:
            return ""
        if not self._model.files:
            return f"{self.recipe.model} holds no weights"
        return f"the files of a {self._model.config.get('model_type')!r} do not tell its blocks"

    def _result_bytes(self) -> int:
        """Return what the model folder and the difference hold."""
        shapes = self._shapes
        stored = sum(file.path.stat().st_size for file in self._model.rewritten)
        matrices = sum(sum(shape) for shape in shapes.values() if len(shape) > 1)
        small = _TEXTS_BYTES
        if self._model.made is None:
            small = sum(path.stat().st_size for path in model_texts(self._model.path))
        rank = self.recipe.difference_rank or 0
        return (stored or 4 * sum(map(math.prod, shapes.values()))) + 4 * rank * matrices + small

    def judge_less(self) -> None:
        """Judge as many sequences as go through the engine together, and write two tokens."""
        few = self.footprint().together
        self._scored, self._written = min(MOST_SCORED, few), _FEW_WRITTEN
        self._labeled = few
        wanted = min(required(self.recipe.evaluation_samples), few)
        self.recipe = replace(self.recipe, evaluation_samples=wanted)
        self._data = Data(self.recipe, self._model, self._tokenizer, lambda: self.model_sha256)

    def load(self) -> None:
        self._data.load()
        self._take_notices()

    def prepare(self, folder: Path, say: Say) -> None:
        self._data.prepare(folder, say)
        self._take_notices()

    def restore(self, folder: Path, say: Say) -> None:
        self._data.restore(folder, say)
        self._take_notices()

    def _take_notices(self) -> None:
        self.notes = tuple(dict.fromkeys((*self.notes, *self._data.notices)))

    def data_sha256(self) -> str:
        begun = {} if self._start is None else self._start.blocks or {}
        return sha256_of({**self._data.kept.arrays(), **begun})

    def open_runtime(self) -> Any:
        frozen = open_engine(self._model, self.recipe, self._start)
        return frozen if self._prompt is None else self._prompt.put_before(frozen)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on; the runtime was told by itself."""
        self.recipe = replace(self.recipe, threads=count)

    def task(self) -> Objective:
        return self._data.task

    def smallest_radius(self) -> float:
        return 0.0  # float activations

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        recipe = self.recipe
        build = methods.get(recipe.method).builder(recipe.preset)
        is_head = heads_of(self._shapes, self._model.vocabulary).__contains__
        parts = Parts(epsilon=epsilon, scale=scale, micro_batch=recipe.micro_batch, is_head=is_head)
        if self._prompt is not None:
            parts = replace(parts, propose=self._prompt.propose)
        estimator, transform = build(recipe, parts)
        if self._start is not None and recipe.clip is not None:
            estimator = Remembering(estimator)  # an adapter's gradients are small enough to keep
        return estimator, transform

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe = self.recipe
        names = ("data", "length", "samples", "learning_rate", "weight_decay", "rank", "scale")
        more = ("trainable", "alpha", "rslora") if self._start is not None else ("refresh_every",)
        return {
            **{name: getattr(recipe, name) for name in (*names, *more)},
            "tokens": len(self._data.task.ids),
            **self._data.facts(),
            "parameters": sum(map(math.prod, self._shapes.values())),
            "random_weights": not self._model.files,
            **({} if self._prompt is None else self._prompt.facts()),
            "prompts": [self._tokenizer.decode(self._data.task.opening())],
        }

    def preview(self, folder: Path, step: int, runtime: Any) -> str | None:
        if step == 0:
            self._write_text(folder, "before", runtime)
        return None

    def finish(self, folder: Path, runtime: Any, best: Point, steps: int, whole: bool) -> Outcome:
        runtime.parameters.load(best)
        if self._prompt is not None:
            outputs = self._prompt.write(folder, best, self.model_sha256)
            if not whole:
                return Outcome(outputs=outputs)
            metrics, line = self._scores(folder, runtime)
            text, said = self._prompt.found(best)
            lines = filter(None, (f"{line}; {said}", self._prompt.said))
            return Outcome({**metrics, **text}, outputs, "\n".join(lines))
        if self._start is not None:
            adapter = replace(self._start.adapter, base_sha256=self.model_sha256)
            write_adapter(folder / ADAPTER_FOLDER, adapter, runtime.parameters)
            outputs = {"adapter": ADAPTER_FOLDER, **self._write_adapter_gguf(folder, adapter, best)}
            if not whole:
                return Outcome(outputs=outputs)
            metrics, line = self._scores(folder, runtime)
            return Outcome(metrics, outputs, line)
        from edge_train.runtimes.torch.language_network import network_layers, sources

        model = self._model
        found = sources(model) if model.files else {}
        if model.made is not None:
            made = model.made
            write_made(folder / _MODEL_FOLDER, model.config, made.tokenizer, made.settings)
        else:
            changes = {} if model.files else in_float32(model.config)
            write_texts(model.path, folder / _MODEL_FOLDER, changes, tokenizer=self._tokenizer)
        own = model.rewritten
        write_language_model(folder / _MODEL_FOLDER, runtime.parameters, found if own else {}, own)
        outputs = {"model": _MODEL_FOLDER}
        if not whole:
            return Outcome(outputs=outputs)
        metrics, line = self._scores(folder, runtime)
        if self.recipe.difference_rank is not None:
            metrics["difference_captured"] = write_difference(
                folder / DIFFERENCE_FOLDER,
                network_layers(model),
                rows_of(runtime.parameters),
                plain(found),
                rank=self.recipe.difference_rank,
                task_type="CAUSAL_LM",
                base=model.base,
            )
            outputs["difference"] = DIFFERENCE_FOLDER
        return Outcome(metrics, outputs, line)

    def _write_adapter_gguf(self, folder: Path, adapter: Adapter, best: Point) -> dict[str, str]:
        """Write what llama.cpp loads beside the file that was trained from, where it can say it."""
        if not leaves_gguf(self._model, adapter):
            return {}
        from edge_train.tasks.language_model.export import ADAPTER_FILE, write_adapter_gguf

        name = folder.resolve().name
        write_adapter_gguf(folder / ADAPTER_FILE, adapter, best, self._model, name)
        return {"adapter_gguf": ADAPTER_FILE}

    def _write_text(self, folder: Path, name: str, runtime: Any) -> None:
        most, tokenizer = self._written, self._tokenizer
        ends = ends_of(self._model, tokenizer, None)
        write_continuation(folder, name, self._data.task, tokenizer, runtime, ends, most)

    def _scores(self, folder: Path, runtime: Any) -> tuple[dict[str, Any], str]:
        """Return the scores at the end, and a line that says them."""
        self._write_text(folder, "after", runtime)
        judged = self._labeled if self.recipe.loss_on == LABELS else 0
        return scores_of(self._data.task, runtime, self._scored, judged)


def _open_model(recipe: LanguageModelRecipe) -> LanguageFolder:
    """Return the model of a recipe.

    Raises:
      InputError: the recipe names none, or no text.
      ModelError: it cannot be used.
    """
    if recipe.data is None:
        raise InputError("task 'language-model' needs a text file: name it with `data` (--data).")
    if recipe.model in ("", EMBEDDED):
        raise InputError(
            "task 'language-model' needs a model: name a GGUF file, or the folder of a "
            "transformers language model, with `model` (--model)."
        )
    if is_gguf(path := Path(recipe.model).expanduser()):
        return open_gguf(path)
    return open_language_model(*find_folder(recipe.model))


def _check_rank(recipe: LanguageModelRecipe, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a low-rank method that would project nothing.

    Raises:
      InputError: no matrix of a layer is larger than the rank.
    """
    sides = [min(s) - 1 for n, s in shapes.items() if len(s) > 1 and not is_embedding(n)]
    if recipe.rank is not None and recipe.rank > (most := max(sides, default=0)):
        raise InputError(
            f"rank is {recipe.rank}, but no layer of {recipe.model} has a matrix with more than "
            f"{most + 1} rows and columns; use a --rank of at most {most}."
        )
