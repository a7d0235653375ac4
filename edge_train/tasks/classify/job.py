"""The job of training a text classifier: labeled texts in, a model folder and its score out."""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Point
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.prompt_words import PromptWords
from edge_train.formats.tensor_store import load_tensors, save_tensors, sha256_of
from edge_train.formats.training_artifact import TrainingArtifact
from edge_train.memory.footprint import Footprint
from edge_train.memory.machine import cores
from edge_train.memory.measure import give_back_memory
from edge_train.methods import drawn_samples, methods
from edge_train.methods.discrete import PROMPT_TOKENS
from edge_train.methods.method import Parts
from edge_train.protocols import Estimator, Transform
from edge_train.recipe import required
from edge_train.rng import Key
from edge_train.runtimes.prompted import BLOCK, PromptedTokens
from edge_train.tasks.class_weights import class_weights
from edge_train.tasks.classify import TASK, heads
from edge_train.tasks.classify.columns import Columns
from edge_train.tasks.classify.footprint import footprint_of
from edge_train.tasks.classify.model import (
    check_engine,
    check_trained_rank,
    fixed_by,
    is_head,
    lacks_types,
    notes_of,
    open_model,
    place_of,
    takes_types,
    trained_shapes,
)
from edge_train.tasks.classify.model_files import check_hashes, keep_hashes
from edge_train.tasks.classify.numbers import load_numbers, numbers_of
from edge_train.tasks.classify.objective import ClassifyText, TokenizedTexts
from edge_train.tasks.classify.opening import open_runtime
from edge_train.tasks.classify.prompted import Prompted, check_trained, searches
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.classify.results import check_difference, write_model, write_own_difference
from edge_train.tasks.classify.scoring import scored
from edge_train.tasks.classify.targets import REGRESSION, settled
from edge_train.tasks.classify.texts import Example, LabeledTexts, load_texts
from edge_train.tasks.classify.tokenizer import TextTokenizer
from edge_train.tasks.dropout import notes_of as dropout_notes
from edge_train.tasks.job import Outcome, Say
from edge_train.tasks.sources import check_candidates, check_sources, sentence, source_numbers
from edge_train.tasks.tokenizer_line import with_tokenizer

if TYPE_CHECKING:
    from edge_train.tasks.classify.opening import Classifier

_START_FILE = "start.safetensors"
_PARTS = ("train", "dev", "test")
_MOST_TOKENS = 128  # of a text, unless the recipe says otherwise; cost grows with the square
_ROUNDED_TO = 8  # a length that is a multiple of it suits vector units
_ADAPTERS = {"rank": 8, "scale": 2.0}


class ClassifyTextJob:
    """A `Job`: its words are checked here, texts are read by `load`, tokenized by `prepare`.

    Raises:
      InputError, ModelError: a word, file or model that cannot be used.
    """

    def __init__(self, recipe: ClassifyRecipe) -> None:
        self._model = open_model(recipe)
        fixed = fixed_by(recipe, self._model)
        fixed["device"], fixed["dtype"], why_there = place_of(recipe, self._model)
        for name, value in fixed.items():
            if name != "trainable" and (wanted := getattr(recipe, name)) not in (value, "auto"):
                raise InputError(
                    f"{name} {wanted!r} is not for task 'classify' with this model, only "
                    f"{value!r}; leave it out."
                )
        adapters = _ADAPTERS if "lora" in (recipe.trainable, recipe.method) else {}
        check_sources(recipe)
        defaults = {"threads": cores(), **adapters}
        engine = str(fixed["runtime"])
        self.recipe = replace(TASK.resolve(recipe, engine, defaults), **fixed)
        self.recipe, self._model = settled(self.recipe, self._model)
        check_engine(self._model, self.recipe)
        self._searches = searches(self.recipe)
        self._prompt: Prompted | None = None  # once the data are read
        check_trained_rank(self.recipe, self._model)
        heads.check_new_head(self._model, new_head=self.recipe.new_head)
        if (most := self._model.positions) < (self.recipe.length or 0):
            raise InputError(
                f"length is {self.recipe.length}, but the model has {most} positions; use at most "
                f"{most}."
            )
        check_difference(self.recipe, self._model)
        self._tokenizer = TextTokenizer.from_folder(
            self._model.path, self._model.pad, self._model.vocabulary
        )
        give_back_memory()  # what was only there to read it
        self.notes = notes_of(self.recipe, self._model)
        if why_there:
            self.notes += (why_there,)
        if isinstance(self._model, ClassifierFolder):
            config = self._model.config
            self.notes += dropout_notes(self._model.path, config, self.recipe.dropout)
        self.name = f"classify-{Path(required(self.recipe.data)).stem}"
        self._texts: LabeledTexts
        self._parts: dict[str, TokenizedTexts]
        self._sources: dict[str, int] = {}  # samples to train on of each, where they are told apart
        self._labels: tuple[str, ...]  # of the data, in the order of the outputs

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the model's weights, or of the artifact."""
        return self._model.sha256()

    def footprint(self) -> Footprint:
        job = copy(self)
        job._read()  # the length depends on the texts; gone when this returns
        trained = trained_shapes(self.recipe, self._model)
        if self._searches:
            trained = {BLOCK: (self.recipe.prompt_tokens or PROMPT_TOKENS,)}
        _, rule = self.method(0.1, dict.fromkeys(trained, 1.0))
        held = footprint_of(
            job.recipe,
            self._model,
            trained,
            rule,
            job._texts,
            labels=len(job._model.labels),
            searches=self._searches,
        )
        return with_tokenizer(held, self._tokenizer.size)

    def load(self) -> None:
        self._read()
        if self._searches and not isinstance(self._model, ClassifierFolder):
            check_trained(self._model, ())
        if isinstance(self._model, ClassifierFolder):
            from edge_train.runtimes.torch.classifier_network import look_at

            new = look_at(self._model)
            if self._searches:
                check_trained(self._model, new)
            self._say_once(*heads.notice_of_new(self._model, new, self.recipe.seed))

    def _read(self) -> None:
        recipe, path = self.recipe, Path(required(self.recipe.data)).expanduser()
        asked = Columns(recipe.text_column, recipe.label_column, recipe.pair_column, recipe.sources)
        if self._numbers:
            self._texts = load_numbers(path, asked)
        else:
            names = heads.names_of(self._model, new_head=recipe.new_head)
            self._texts = load_texts(path, names, asked)
            labels = self._texts.labels
            self._model = heads.with_labels(self._model, labels, new_head=recipe.new_head)
        self._say_once(*self._texts.notices)
        check_candidates(recipe, len(self._texts.train))
        heads.check_end_token(self._model, self._tokenizer, self._texts.train[0].text)
        if self._texts.in_pairs:
            self._check_pairs()
        if self._searches:
            if self._texts.in_pairs:
                raise InputError(
                    f"{path}: holds pairs of texts, and a prompt is searched in front of single "
                    "ones; use another --method."
                )
            self._prompt = Prompted.begin(recipe, self._tokenizer)
        if self.recipe.length is None:
            most = min(_MOST_TOKENS, self._model.positions)
            found = self._tokenizer.longest(self._given(self._texts.train), most)
            rounded = -(-found // _ROUNDED_TO) * _ROUNDED_TO
            self.recipe = replace(self.recipe, length=min(rounded, most))

    def _given(self, examples: Sequence[Example]) -> list[str] | list[tuple[str, str]]:
        """Return what the tokenizer takes, a prompt in front of it."""
        if self._prompt is None:
            return _inputs(examples)
        return self._prompt.before([example.text for example in examples])

    @property
    def _numbers(self) -> bool:
        """Whether labels are numbers, not classes."""
        return self.recipe.objective == REGRESSION

    def prepare(self, folder: Path, say: Say) -> None:
        keep_hashes(folder, self._model.path)
        self._prepare(folder, say)

    def _prepare(self, folder: Path, say: Say) -> None:
        texts = self._texts
        every = {"train": texts.train, "dev": texts.dev, "test": texts.test}
        self._cut: dict[str, int] = {}  # texts of a part that are longer than they are read
        self._parts = {name: self._tokenized(name, part) for name, part in every.items()}
        if any(self._cut.values()):
            self._say_once(self._what_is_cut(every))
        self._labels = texts.labels
        counts = ", ".join(f"{len(part)} {name}" for name, part in every.items() if part)
        what = "with numbers" if self._numbers else f"of {len(texts.labels)} classes"
        say(f"{counts} examples {what}, {self.recipe.length} tokens each")
        if self._sources:
            say(sentence(self._sources.keys(), self._sources.values()))
        about = {"model_sha256": self.model_sha256, heads.LABELS: json.dumps(texts.labels)}
        if self._prompt is not None:
            about |= self._prompt.metadata()
        save_tensors(folder / _START_FILE, self._merged(), about)

    def _merged(self) -> dict[str, NDArray[Any]]:
        tensors = [part.tensors(name) for name, part in self._parts.items()]
        return {name: value for part in tensors for name, value in part.items()}

    def data_sha256(self) -> str:
        return sha256_of(self._merged())

    def check_model(self, folder: Path, say: Say) -> None:
        check_hashes(folder, self._model.path, say)

    def restore(self, folder: Path, say: Say) -> None:
        try:
            tensors, about = load_tensors(folder / _START_FILE)
            self._parts = {name: TokenizedTexts.from_tensors(name, tensors) for name in _PARTS}
            self._labels = heads.labels_of(about, self._model)
            if self._searches:
                self._prompt = Prompted.from_metadata(about)
            new_head = self.recipe.new_head
            if not self._numbers:
                self._model = heads.with_labels(self._model, self._labels, new_head=new_head)
        except (RunFolderError, KeyError, ValueError) as error:
            say(f"{error} Reading the examples again.")
            self.load()
            self._prepare(folder, say)

    def _tokenized(self, name: str, examples: tuple[Example, ...]) -> TokenizedTexts:
        length = required(self.recipe.length)
        found = self._tokenizer.encode(self._given(examples), length)
        if self._prompt is not None:
            self._prompt.check(found.ids, self.recipe.data)
        self._cut[name] = found.cut
        types = found.types if takes_types(self._model) else None
        labels: NDArray[Any]
        if self._numbers:
            labels = np.array(numbers_of(examples, str(self.recipe.data)), np.float32)
        else:
            labels = np.array(self._texts.numbers(examples), np.int32)
        sources = None
        if self.recipe.sources is not None and name == "train":
            sources, names = source_numbers([example.source for example in examples])
            self._sources = dict(zip(names, np.bincount(sources).tolist(), strict=True))
        return TokenizedTexts(found.ids, found.counts, labels, types, sources)

    def _what_is_cut(self, every: Mapping[str, Sequence[Example]]) -> str:
        """Return a sentence about the texts that are longer than they are read."""
        length, most = required(self.recipe.length), self._model.positions
        longer = f"a longer --length keeps more of it, at most {most}"
        if length >= most:
            longer = f"a longer --length cannot help, the model has {most} positions"
        parts = ", ".join(f"{cut} {name}" for name, cut in self._cut.items() if cut)
        return (
            f"{sum(self._cut.values())} of {sum(map(len, every.values()))} texts are longer than "
            f"{length} tokens and lose their end ({parts}); {longer}"
        )

    def _check_pairs(self) -> None:
        """Say how the two texts of a pair are told apart, where that is not the usual way.

        Raises:
          InputError: an artifact from before pairs were trained, whose graphs cannot tell.
        """
        model = self._model
        if isinstance(model, TrainingArtifact) and lacks_types(model):
            raise InputError(
                f"artifact {self.recipe.model} was exported before pairs of texts were trained: "
                "its graphs cannot tell the two apart; export the model again with `edge-train "
                f"export {model.manifest.origin['model']} OUT --for ort-training`."
            )
        if not self._tokenizer.parts_pairs:
            self._say_once(
                "this tokenizer puts nothing between the two texts of a pair; they are read as one"
            )

    def _say_once(self, *lines: str) -> None:
        self.notes = tuple(dict.fromkeys((*self.notes, *lines)))

    def open_runtime(self) -> "Classifier | PromptedTokens":
        if self._prompt is None:
            return open_runtime(self._model, self.recipe)
        # of a frozen model the head alone is held as parameters
        frozen = open_runtime(self._model, replace(self.recipe, trainable="head"))
        return self._prompt.put_before(frozen)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on; the runtime was told by itself."""
        self.recipe = replace(self.recipe, threads=count)

    def task(self) -> ClassifyText:
        return ClassifyText(
            train=self._parts["train"],
            dev=self._parts["dev"],
            samples=drawn_samples(self.recipe),
            evaluation_samples=required(self.recipe.evaluation_samples),
            smoothing=self.recipe.label_smoothing,
            weights=self._class_weights(),
            dropout=self.recipe.dropout,
        )

    def _class_weights(self) -> NDArray[np.float32] | None:
        """Return what texts of each class count; None: all the same."""
        text, labels = self.recipe.class_weights, self._parts["train"].labels
        return None if text is None else class_weights(text, labels, self._model.labels)

    def smallest_radius(self) -> float:
        return 0.0  # float weights and activations

    def use_fits(self, fits: tuple[tuple[int, int], ...]) -> None:
        self.recipe = replace(self.recipe, fits=fits)

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        parts = Parts(epsilon=epsilon, scale=scale, is_head=is_head)
        if self._searches:
            parts = replace(parts, propose=self._propose)
        return build(self.recipe, parts)

    def _propose(
        self, key: Key, ids: Sequence[int], position: int, count: int
    ) -> NDArray[np.int64]:
        """Return tokens to try; see `estimators.discrete.Propose`."""
        return self._words.propose(key, ids, position, count)

    @cached_property
    def _words(self) -> PromptWords:
        assert self._prompt is not None  # of a run that searches one
        return self._prompt.words(self.recipe, self._tokenizer, self._parts["train"].ids)

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe = self.recipe
        return {
            "data": recipe.data,
            "objective": recipe.objective,
            "labels": list(self._texts.labels),
            "examples": {name: len(part) for name, part in self._parts.items()},
            "length": recipe.length,
            **({"pairs": True} if self._texts.in_pairs else {}),
            **({"sources": self._sources} if self._sources else {}),
            "trainable": "prompt" if self._searches else recipe.trainable,
            **({"prompt_start": self._prompt.text} if self._prompt is not None else {}),
            "samples": recipe.samples,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
        }

    def preview(self, folder: Path, step: int, runtime: "Classifier") -> str | None:
        return None

    def finish(
        self, folder: Path, runtime: "Classifier", best: Point, steps: int, whole: bool
    ) -> Outcome:
        if self._prompt is not None:
            found = self._prompt.found(self._tokenizer, best[BLOCK])
            outputs = found.write(folder, str(self._model.path.resolve()), self.model_sha256)
            if not whole:
                return Outcome(outputs=outputs)
            scores, line = self._scores(runtime, best)
            return Outcome({**scores, "prompt": found.text}, outputs, f"{line}: {found.text}")
        weights = runtime.weights(best)
        names = None if self._numbers else self._labels
        outputs = write_model(
            folder, self.recipe, self._model, self._tokenizer, names, runtime, weights, best
        )
        if not whole:
            return Outcome(outputs=outputs)
        metrics, line = self._scores(runtime, best)
        if self.recipe.difference_rank is not None:
            captured, written = write_own_difference(
                folder, self.recipe, self._model, runtime, weights
            )
            metrics["difference_captured"] = captured
            outputs |= written
        return Outcome(metrics, outputs, line)

    def _scores(self, runtime: Any, best: Point) -> tuple[dict[str, Any], str]:
        """Return scores on the test texts, or the dev texts, and a line that says them."""
        part = "test" if len(self._parts["test"]) else "dev"
        texts = self._parts[part]
        logits = runtime.logits(texts.batch(np.arange(len(texts))), best)
        outputs = None if self._numbers else len(self._model.labels)
        backend = self._tokenizer.backend
        return scored(part, texts, logits, self._labels, backend, outputs=outputs)


def _inputs(examples: Sequence[Example]) -> list[str] | list[tuple[str, str]]:
    """Return what the tokenizer takes: texts, or pairs of them."""
    if examples and examples[0].pair is not None:
        return [(example.text, example.pair or "") for example in examples]
    return [example.text for example in examples]
