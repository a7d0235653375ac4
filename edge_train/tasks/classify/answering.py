"""`edge-train infer` of a text classifier: the class of each text, or its number."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.export.classifier_files import WEIGHTS_FILE
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.hub import find_folder
from edge_train.formats.prompt_file import PROMPT_FILE, read_prompt_file
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.training_artifact import is_training_artifact, open_training_artifact
from edge_train.memory.machine import cores
from edge_train.records.folder import RunFolder
from edge_train.records.history import has_begun, read_records
from edge_train.tasks import read_recipe
from edge_train.tasks.classify.model import Model, check_engine
from edge_train.tasks.classify.model_files import MODEL_FOLDER
from edge_train.tasks.classify.objective import TokenizedTexts
from edge_train.tasks.classify.opening import open_runtime
from edge_train.tasks.classify.recipe import ClassifyRecipe
from edge_train.tasks.classify.targets import REGRESSION
from edge_train.tasks.classify.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Learned:
    """What a run learned.

    Attributes:
      before: stands in front of every text; empty: nothing does.
      labels: names of the outputs; None: the only output is a number.
      length: tokens that a text is read to.
    """

    runtime: Any
    tokenizer: TextTokenizer
    before: str
    labels: tuple[str, ...] | None
    length: int

    def outputs(self, text: str) -> tuple[Array, bool]:
        """Return the outputs for a text, (outputs,), and whether the text lost its end."""
        texts = [f"{self.before} {text}" if self.before else text]
        length = min(self.length, self.tokenizer.longest(texts, self.length))
        found = self.tokenizer.encode(texts, length)
        label = np.zeros(1, np.int32 if self.labels is not None else np.float32)
        batch = TokenizedTexts(found.ids, found.counts, label).batch(np.zeros(1, np.int64))
        logits = self.runtime.logits(batch, self.runtime.parameters)[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise ModelError("the model's outputs are not finite; train it again.")
        return logits, bool(found.cut)


def infer(run: Path, texts: Sequence[str], *, as_json: bool) -> Iterator[str]:
    """Yield a line about each text, in order.

    Raises:
      InputError: a text is empty, or the run is of pairs of texts.
      ModelError, RunFolderError: the run or its model cannot be used.
    """
    if not all(text.strip() for text in texts):
        raise InputError("a text is empty; write one.")
    learned = open_learned(run.expanduser())
    for text in texts:
        outputs, cut = learned.outputs(text)
        said: dict[str, Any] = {"text": text}
        if learned.labels is None:
            said["number"] = round(float(outputs[0]), 6)
            line = f"{outputs[0]:.4g}"
        else:
            shares = np.exp(outputs - outputs.max())
            shares /= shares.sum()
            order = np.argsort(-shares, kind="stable").tolist()
            said["class"] = learned.labels[order[0]]
            said["probabilities"] = {learned.labels[n]: round(float(shares[n]), 6) for n in order}
            line = f"{learned.labels[order[0]]} ({100 * shares[order[0]]:.1f} %)"
        if cut:
            said["read_tokens"] = learned.length
            line += f", by its first {learned.length} tokens"
        line += f": {' '.join(text.split())}"
        yield json.dumps(said, ensure_ascii=False) if as_json else line
    learned.runtime.close()


def open_learned(run: Path) -> Learned:
    """Return what a run learned, ready to be asked, on the engine that it was trained on.

    Raises:
      InputError: the run is of pairs of texts, or a package is missing.
      ModelError: its model has gone, was changed, or cannot be used.
      RunFolderError: the run has not learned anything yet.
    """
    recipe = read_recipe(RunFolder(run).recipe)
    assert isinstance(recipe, ClassifyRecipe)  # `shared_verbs` asked for the task
    records = read_records(run)
    if not has_begun(records) or not (
        (run / PROMPT_FILE).is_file() or (run / MODEL_FOLDER).is_dir()
    ):
        raise RunFolderError(
            f"{run}: holds no {MODEL_FOLDER}/ or {PROMPT_FILE} yet; finish the run first: "
            f"`edge-train run --resume {run}`."
        )
    facts = records[0]["facts"]
    if facts.get("pairs"):
        raise InputError(
            f"{run}: was trained on pairs of texts, and infer asks single ones; load "
            f"{run / MODEL_FOLDER} with transformers."
        )
    recipe, before = replace(recipe, threads=cores(), device="cpu", dtype="float32"), ""
    if (run / PROMPT_FILE).is_file():
        prompt = read_prompt_file(run, {})
        model = _open(prompt["base"])
        if model.sha256() != prompt["base_sha256"]:
            raise ModelError(
                f"{prompt['base']}: is not the model that the prompt of {run} was found for; it "
                "has changed since."
            )
        recipe, before = replace(recipe, trainable="head"), prompt["text"]
    elif recipe.runtime == "ort-training":
        model = _open(recipe.model)
        if model.sha256() != facts["model_sha256"]:
            raise ModelError(
                f"{recipe.model}: is not the artifact that {run} was trained on, whose graphs and "
                "frozen weights its answers need; put that one back."
            )
    else:
        model = _open(str(run / MODEL_FOLDER))
        recipe = replace(recipe, trainable="head", dropout=False)
    recipe = replace(recipe, method="zo")  # forward passes alone: no engine opens its gradients
    check_engine(model, recipe)
    runtime = open_runtime(model, recipe)
    if not before and recipe.runtime == "ort-training":
        stored = TensorFile(run / MODEL_FOLDER / WEIGHTS_FILE)
        for name, block in runtime.parameters.items():
            np.copyto(block, stored.read(name))
    names = tuple(facts["labels"])
    names += model.labels[len(names) :]  # of classes that the data have no text of
    return Learned(
        runtime,
        TextTokenizer.from_folder(model.path, model.pad, model.vocabulary),
        before,
        None if recipe.objective == REGRESSION else names,
        int(facts["length"]),
    )


def _open(name: str) -> Model:
    path, base = find_folder(name, "")
    if is_training_artifact(path):
        return open_training_artifact(path)
    return open_classifier(path, base)
