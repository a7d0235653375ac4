"""The job of training a text classifier: labeled texts in, a model folder and its score out."""

import json
import math
from collections.abc import Container, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Point
from edge_train.errors import InputError, RunFolderError
from edge_train.export.classifier_files import write_classifier
from edge_train.export.difference import (
    DIFFERENCE_FOLDER,
    check_rank,
    workspace_bytes,
    write_difference,
)
from edge_train.export.result_texts import CONFIG, as_classifier, write_config, write_texts
from edge_train.formats.atomic import write_bytes
from edge_train.formats.classifier_folder import ClassifierFolder, open_classifier
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.hub import find_folder
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.tensor_store import load_tensors, save_tensors, sha256_of
from edge_train.formats.training_artifact import (
    WEIGHTS,
    TrainingArtifact,
    is_training_artifact,
    open_training_artifact,
)
from edge_train.formats.weight_files import hash_of, read_json
from edge_train.memory.footprint import PREPARE, SAVE, TRAIN, Footprint, PlanLine, state_line
from edge_train.memory.machine import cores
from edge_train.methods import methods
from edge_train.methods.method import GRADIENT, MATRICES, Parts
from edge_train.optim.low_rank import is_embedding
from edge_train.protocols import Estimator, Transform
from edge_train.recipe import required
from edge_train.tasks.classify import TASK, heads
from edge_train.tasks.classify.objective import ClassifyText, TokenizedTexts, confusion
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.classify.texts import Example, LabeledTexts, load_texts
from edge_train.tasks.classify.tokenizer import FILES as TOKENIZER_FILES
from edge_train.tasks.classify.tokenizer import TextTokenizer
from edge_train.tasks.job import Outcome, Say

if TYPE_CHECKING:
    from edge_train.runtimes.onnx.classifier import OrtClassifier
    from edge_train.runtimes.torch.classifier import TorchClassifier
    from edge_train.runtimes.torch.lora import TorchLora

    Classifier = TorchClassifier | OrtClassifier

Shapes = Mapping[str, tuple[int, ...]]

_START_FILE = "start.safetensors"
_MODEL_FILES = "model_files.json"
_PARTS = ("train", "dev", "test")
_MOST_TOKENS = 128  # of a text, unless the recipe says otherwise; cost grows with the square
_ROUNDED_TO = 8  # a length that is a multiple of it suits vector units
_MODEL_FOLDER = "model"
_ADAPTER_FOLDER = "adapter"
# Kept of a small BERT, in bytes per token and root of the weights: a rehearsal less all else.
_KEPT_BYTES = {"torch": 18, "ort-training": 88}
_COPIES = 4  # of the trained blocks in float32: live, gradient, update, what is being written
_HEADS = ("classifier", "score", "pre_classifier", "pooler")
_ADAPTERS = {"rank": 8, "scale": 2.0}


class ClassifyTextJob:
    """A `Job`: its words are checked here, texts are read by `load`, tokenized by `prepare`.

    Raises:
      InputError, ModelError: a word, file or model that cannot be used.
    """

    def __init__(self, recipe: ClassifyRecipe) -> None:
        self._model = _open_model(recipe)
        fixed = _fixed(recipe, self._model)
        for name, value in fixed.items():
            if name != "trainable" and (wanted := getattr(recipe, name)) not in (value, "auto"):
                raise InputError(
                    f"{name} {wanted!r} is not for task 'classify' with this model, only "
                    f"{value!r}; leave it out."
                )
        adapters = _ADAPTERS if "lora" in (recipe.trainable, recipe.method) else {}
        defaults = {"threads": cores(), **adapters}
        engine = str(fixed["runtime"])
        self.recipe = replace(TASK.resolve(recipe, engine, defaults), **fixed)
        _check_engine(self._model, self.recipe)
        _check_rank(self.recipe, self._model)
        heads.check_new_head(self._model, new_head=self.recipe.new_head)
        if (most := self._model.positions) < (self.recipe.length or 0):
            raise InputError(
                f"length is {self.recipe.length}, but the model has {most} positions; use at most "
                f"{most}."
            )
        self._check_difference()
        self._tokenizer = TextTokenizer.from_folder(
            self._model.path, self._model.pad, self._model.vocabulary
        )
        self.notes = _notes(self.recipe, self._model)
        self.name = f"classify-{Path(required(self.recipe.data)).stem}"
        self._texts: LabeledTexts
        self._parts: dict[str, TokenizedTexts]
        self._labels: tuple[str, ...]  # of the data, in the order of the outputs

    @cached_property
    def model_sha256(self) -> str:
        """The hash of the model's weights, or of the artifact."""
        return self._model.sha256()

    def footprint(self) -> Footprint:
        recipe, shapes = self.recipe, _shapes(self._model)
        trained = self._trained_shapes(shapes)
        _, transform = self.method(0.1, dict.fromkeys(trained, 1.0))
        items = sum(map(math.prod, shapes.values()))
        weights = PlanLine("weights", 4 * items)
        state = state_line(transform, trained, _COPIES)
        job = copy(self)
        job._read()  # the length depends on the texts; gone when this returns
        texts = min(recipe.batch_limit or 4096, required(recipe.samples))
        tokens = texts * required(job.recipe.length)
        # each weight meets each token once; what a layer keeps grows with the root of its size
        kept = int(_KEPT_BYTES[recipe.runtime] * tokens * math.sqrt(items))
        use = TASK.use(recipe.runtime)
        libraries = use.libraries
        if isinstance(self._model, ClassifierFolder):
            libraries = (*libraries, *_network_module(self._model))
        return Footprint(
            libraries,
            weights.bytes,
            {PREPARE: (), TRAIN: (weights, state), SAVE: (weights, state)},
            {TRAIN: kept, SAVE: workspace_bytes(recipe.difference_rank or 0, shapes)},
            use.first_use_bytes,
            use.libraries_bytes,
        )

    def _trained_shapes(self, shapes: Shapes) -> Shapes:
        """Return the shape of every trained block; a head is what the files call by its name."""
        frozen: Container[str] = ()
        if isinstance(self._model, TrainingArtifact):
            frozen = self._model.manifest.frozen
        elif self.recipe.trainable != "all":
            frozen = {name for name in shapes if not name.startswith(_HEADS)}
            if self.recipe.trainable == "norms":
                frozen = {name for name in frozen if len(shapes[name]) > 1}
        trained = {name: shape for name, shape in shapes.items() if name not in frozen}
        if self.recipe.trainable == "lora":
            rank = required(self.recipe.rank)
            trained |= {
                f"{n}.lora": (rank, sum(s)) for n, s in shapes.items() if _is_attention(n, s)
            }
        return trained

    def _check_difference(self) -> None:
        """Refuse a difference where there is nothing to compare with, or one is written anyway.

        Raises:
          InputError: as described.
        """
        if (rank := self.recipe.difference_rank) is None:
            return
        if not isinstance(self._model, ClassifierFolder):
            raise InputError(
                f"difference_rank is not for artifact {self.recipe.model}; name the model folder "
                "that it was made of, or leave it out."
            )
        if self.recipe.trainable == "lora":
            raise InputError(
                "difference_rank is not for adapters, which are written as they are trained; "
                "leave it out."
            )
        check_rank(rank, _shapes(self._model))

    def load(self) -> None:
        self._read()
        if isinstance(self._model, ClassifierFolder):
            from edge_train.runtimes.torch.classifier import look_at

            new = look_at(self._model)
            self.notes += heads.notice_of_new(self._model, new, self.recipe.seed)

    def _read(self) -> None:
        path, new_head = Path(required(self.recipe.data)).expanduser(), self.recipe.new_head
        self._texts = load_texts(path, heads.names_of(self._model, new_head=new_head))
        self._model = heads.with_labels(self._model, self._texts.labels, new_head=new_head)
        heads.check_end_token(self._model, self._tokenizer, self._texts.train[0].text)
        if self.recipe.length is None:
            found = self._tokenizer.longest([example.text for example in self._texts.train])
            rounded = -(-found // _ROUNDED_TO) * _ROUNDED_TO
            length = min(rounded, _MOST_TOKENS, self._model.positions)
            self.recipe = replace(self.recipe, length=length)

    def prepare(self, folder: Path, say: Say) -> None:
        write_bytes(folder / _MODEL_FILES, (json.dumps(self._model_files()) + "\n").encode())
        self._prepare(folder, say)

    def _model_files(self) -> dict[str, str]:
        """Return the hashes of what a run reads of its model beside weights, by name."""
        names = ("config.json", *TOKENIZER_FILES)
        paths = [self._model.path / name for name in names]
        return {path.name: hash_of([("", path)]) for path in paths if path.is_file()}

    def _check_model_files(self, folder: Path, say: Say) -> None:
        """Refuse another configuration or tokenizer than the run began with.

        Raises:
          RunFolderError: as described. A run of earlier code, which kept no hashes, goes on.
        """
        path = folder / _MODEL_FILES
        if not path.is_file():
            return
        try:
            before = json.loads(path.read_bytes())
            if not isinstance(before, dict):
                raise ValueError("it holds no JSON object")
        except (OSError, ValueError) as error:
            say(f"{path}: cannot be used ({error}); whether the model is the same is not known.")
            return
        now = self._model_files()
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise RunFolderError(
                    f"{folder}: {self._model.path / name} is not what it was when this run began; "
                    "put that file back, or start a new run."
                )

    def _prepare(self, folder: Path, say: Say) -> None:
        texts = self._texts
        every = {"train": texts.train, "dev": texts.dev, "test": texts.test}
        self._parts = {name: self._tokenized(part) for name, part in every.items()}
        self._labels = texts.labels
        counts = ", ".join(f"{len(part)} {name}" for name, part in every.items() if part)
        say(f"{counts} examples of {len(texts.labels)} classes, {self.recipe.length} tokens each")
        about = {"model_sha256": self.model_sha256, heads.LABELS: json.dumps(texts.labels)}
        save_tensors(folder / _START_FILE, self._merged(), about)

    def _merged(self) -> dict[str, NDArray[Any]]:
        tensors = [part.tensors(name) for name, part in self._parts.items()]
        return {name: value for part in tensors for name, value in part.items()}

    def data_sha256(self) -> str:
        return sha256_of(self._merged())

    def restore(self, folder: Path, say: Say) -> None:
        self._check_model_files(folder, say)
        try:
            tensors, about = load_tensors(folder / _START_FILE)
            self._parts = {name: TokenizedTexts.from_tensors(name, tensors) for name in _PARTS}
            self._labels = heads.labels_of(about, self._model)
            new_head = self.recipe.new_head
            self._model = heads.with_labels(self._model, self._labels, new_head=new_head)
        except (RunFolderError, KeyError, ValueError) as error:
            say(f"{error} Reading the examples again.")
            self.load()
            self._prepare(folder, say)

    def _tokenized(self, examples: tuple[Example, ...]) -> TokenizedTexts:
        texts = [example.text for example in examples]
        ids, counts = self._tokenizer.encode(texts, required(self.recipe.length))
        return TokenizedTexts(ids, counts, np.array(self._texts.numbers(examples), np.int32))

    def open_runtime(self) -> "Classifier":
        threads, seed = required(self.recipe.threads), self.recipe.seed
        if isinstance(self._model, TrainingArtifact):
            from edge_train.runtimes.onnx.classifier import OrtClassifier

            lean = self.recipe.lean
            gradients = GRADIENT in methods.get(self.recipe.method).needs
            return OrtClassifier(
                self._model, threads=threads, lean=lean, gradients=gradients, seed=seed
            )
        if self.recipe.trainable == "lora":
            from edge_train.runtimes.torch.lora import TorchLora

            rank, scale = required(self.recipe.rank), required(self.recipe.scale)
            return TorchLora.open_adapted(
                self._model, rank=rank, scale=scale, threads=threads, seed=seed
            )
        from edge_train.runtimes.torch.classifier import TorchClassifier

        trainable = self.recipe.trainable
        return TorchClassifier.open(self._model, trainable=trainable, threads=threads, seed=seed)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on; the runtime was told by itself."""
        self.recipe = replace(self.recipe, threads=count)

    def task(self) -> ClassifyText:
        return ClassifyText(
            train=self._parts["train"],
            dev=self._parts["dev"],
            samples=required(self.recipe.samples),
            evaluation_samples=required(self.recipe.evaluation_samples),
        )

    def smallest_radius(self) -> float:
        return 0.0  # float weights and activations

    def method(
        self, epsilon: float, scale: Mapping[str, float]
    ) -> tuple[Estimator[Any], Transform]:
        build = methods.get(self.recipe.method).builder(self.recipe.preset)
        return build(self.recipe, Parts(epsilon=epsilon, scale=scale))

    def facts(self, folder: Path) -> Mapping[str, Any]:
        recipe = self.recipe
        return {
            "data": recipe.data,
            "labels": list(self._texts.labels),
            "examples": {name: len(part) for name, part in self._parts.items()},
            "length": recipe.length,
            "trainable": recipe.trainable,
            "samples": recipe.samples,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
        }

    def preview(self, folder: Path, step: int, runtime: "Classifier") -> str | None:
        return None

    def finish(
        self, folder: Path, runtime: "Classifier", best: Point, steps: int, whole: bool
    ) -> Outcome:
        source, pad = self._model.path, self._model.pad
        weights = runtime.weights(best)
        config = read_json(source / CONFIG)
        changes = as_classifier(config, self._labels, pad, runtime.architecture)
        word = self._tokenizer.backend.id_to_token(pad)
        write_texts(source, folder / _MODEL_FOLDER, changes, word)
        write_classifier(folder / _MODEL_FOLDER, weights)
        outputs = {"model": _MODEL_FOLDER}
        if self.recipe.trainable == "lora":
            cast("TorchLora", runtime).save_adapter(folder / _ADAPTER_FOLDER, best)
            write_config(source, folder / _ADAPTER_FOLDER, changes)
            outputs["adapter"] = _ADAPTER_FOLDER
        if not whole:
            return Outcome(outputs=outputs)
        part = "test" if len(self._parts["test"]) else "dev"
        texts = self._parts[part]
        logits = runtime.logits(texts.batch(np.arange(len(texts))), best)
        table = confusion(texts.labels, logits.argmax(axis=1), len(self._model.labels))
        metrics = {
            "accuracy": float(np.trace(table) / len(texts)),
            "scored_on": part,
            "scored_examples": len(texts),
            "confusion": table.tolist(),
        }
        if self.recipe.difference_rank is not None:
            metrics["difference_captured"] = self._write_difference(
                folder / DIFFERENCE_FOLDER, cast("TorchClassifier", runtime), weights
            )
            outputs["difference"] = DIFFERENCE_FOLDER
        line = f"{100 * metrics['accuracy']:.1f} % of {len(texts)} {part} examples are classified"
        return Outcome(metrics, outputs, f"{line} correctly")

    def _write_difference(
        self, folder: Path, runtime: "TorchClassifier", weights: Mapping[str, Any]
    ) -> float:
        model = cast(ClassifierFolder, self._model)
        return write_difference(
            folder,
            runtime.layers(),
            weights,
            runtime.stored(model),
            rank=required(self.recipe.difference_rank),
            task_type="SEQ_CLS",
            base=model.base,
        )


def _open_model(recipe: ClassifyRecipe) -> ClassifierFolder | TrainingArtifact:
    """Return the model of a recipe.

    Raises:
      InputError: the recipe names none, or no data.
      ModelError: it cannot be used.
    """
    if recipe.data is None:
        raise InputError(
            "task 'classify' needs labeled texts: name a file or folder with `data` (--data)."
        )
    if recipe.model in ("", EMBEDDED):
        raise InputError(
            "task 'classify' needs a model: name the folder of a transformers sequence classifier "
            "with `model` (--model)."
        )
    path, base = find_folder(recipe.model)
    if is_training_artifact(path):
        return open_training_artifact(path)
    return open_classifier(path, base)


def _notes(recipe: ClassifyRecipe, model: ClassifierFolder | TrainingArtifact) -> tuple[str, ...]:
    """Return what is said of adapters: what base others will look for."""
    adapters = recipe.trainable == "lora" or recipe.difference_rank is not None
    if not adapters or not isinstance(model, ClassifierFolder):
        return ()
    return (f"the adapter will name its base as {model.base}",)


def _check_engine(model: ClassifierFolder | TrainingArtifact, recipe: ClassifyRecipe) -> None:
    """Refuse what cannot be trained here, before anything is read or written.

    Raises:
      InputError: the engine that this kind of model needs is not installed.
    """
    if isinstance(model, TrainingArtifact):
        from edge_train.runtimes.onnx.classifier import check_flavor
        from edge_train.runtimes.onnx.engine import load_engine

        if GRADIENT in methods.get(recipe.method).needs:
            check_flavor()
        else:
            load_engine()
        return
    adapters = ("peft",) if recipe.trainable == "lora" else ()
    for package in ("torch", "transformers", "accelerate", *adapters):
        if find_spec(package) is None:
            raise InputError(
                f"{model.path}: training this needs {package}, which is not installed; "
                "`pip install edge-train[desk]` brings it."
            )


def _network_module(model: ClassifierFolder) -> tuple[str, ...]:
    """Return the module of transformers that has the network, where it knows this kind."""
    kind = str(model.config["model_type"]).replace("-", "_")
    name = f"transformers.models.{kind}.modeling_{kind}"
    try:
        return (name,) if find_spec(name) is not None else ()
    except ModuleNotFoundError:
        return ()


def _check_rank(recipe: ClassifyRecipe, model: ClassifierFolder | TrainingArtifact) -> None:
    """Refuse a low-rank method that would project nothing.

    Raises:
      InputError: no matrix of a layer is trained, or none is larger than the rank.
    """
    if recipe.rank is None:
        return
    method = methods.get(recipe.method)
    low_rank = MATRICES in method.needs and "rank" in method.reads  # `adamw8bit` has no rank
    if recipe.trainable != "all" and low_rank:
        raise InputError(
            f"method {recipe.method!r} projects the matrices of layers, and trainable "
            f"{recipe.trainable!r} trains none of them; use --method adamw."
        )
    shapes = _shapes(model)
    projected = _is_attention if recipe.trainable == "lora" else _is_layer
    most = max((min(s) - 1 for n, s in shapes.items() if projected(n, s)), default=0)
    if recipe.rank > most:
        raise InputError(
            f"rank is {recipe.rank}, but no layer of {recipe.model} has a matrix with more than "
            f"{most + 1} rows and columns; use a --rank of at most {most}."
        )


def _is_layer(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and not is_embedding(name)


def _is_attention(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether adapters may stand beside a matrix; peft takes some of these, seldom all."""
    return _is_layer(name, shape) and "att" in name


def _shapes(model: ClassifierFolder | TrainingArtifact) -> Shapes:
    if isinstance(model, ClassifierFolder):
        files = model.weight_files()
    else:
        files = (TensorFile(model.path / WEIGHTS),)
    return {name: entry.shape for file in files for name, entry in file.entries.items()}


def _fixed(recipe: ClassifyRecipe, model: ClassifierFolder | TrainingArtifact) -> dict[str, Any]:
    """Return what the model and the task leave no choice of.

    Raises:
      InputError: the runtime that was asked for is that of the other kind of model.
    """
    fixed: dict[str, Any] = {"device": "cpu", "dtype": "float32", "quant": "none"}
    if isinstance(model, ClassifierFolder):
        if recipe.runtime in ("onnx", "ort-training"):
            raise InputError(
                f"runtime {recipe.runtime!r} trains exported models; write one with `edge-train "
                f"export {recipe.model} OUT --for ort-training`, then run --model OUT."
            )
        fixed |= {"runtime": "torch", "lean": False}
        if recipe.method != "lora":
            return fixed
        if recipe.trainable not in ("all", "lora"):
            raise InputError(
                f"method 'lora' trains adapters and the head, not {recipe.trainable!r}; leave out "
                "--trainable, or use --method adamw."
            )
        return {**fixed, "trainable": "lora"}
    if recipe.method == "lora" or recipe.trainable in ("norms", "lora"):
        raise InputError(
            f"artifact {recipe.model} trains what it was exported for, all or head; for adapters "
            "or norms alone name the model folder that it was made of."
        )
    head_only = bool(model.manifest.frozen)
    if recipe.trainable == "head" and not head_only:
        raise InputError(
            f"trainable 'head' was asked for, but artifact {recipe.model} was exported to train "
            "all weights; export it again with --trainable head, or leave it out."
        )
    trainable = "head" if head_only else "all"
    return {**fixed, "runtime": "ort-training", "trainable": trainable}
