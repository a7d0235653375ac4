"""Pairs of texts and long texts on their way into a classifier, on both engines."""

from dataclasses import replace

import numpy as np
import pytest
from tables import write_table

from edge_train.errors import InputError

pytest.importorskip("torch")

from edge_train.tasks import open_job
from edge_train.tasks.classify.recipe import ClassifyRecipe

pytestmark = pytest.mark.process


def job_of(classifiers, engine, folder, data, **keys):
    """Return a prepared job, and what it said."""
    model = classifiers.model if engine == "torch" else classifiers.artifact
    job = open_job(ClassifyRecipe(data=str(data), model=str(model), threads=1, samples=8, **keys))
    job.load()
    folder.mkdir()
    job.prepare(folder, print)
    return job


@pytest.fixture(scope="module")
def pairs(classifiers, tmp_path_factory):
    lines = (classifiers.data / "train.tsv").read_text().splitlines()
    rows = [
        {"premise": one, "hypothesis": other, "label": str(n % 2)}
        for n, (one, other) in enumerate(zip(lines[:40], lines[40:80], strict=True))
    ]
    rows = [{name: text.split("\t")[0] for name, text in row.items()} for row in rows]
    return write_table(tmp_path_factory.mktemp("pairs") / "pairs.tsv", rows)


def test_both_engines_know_which_text_of_a_pair_a_word_is_in(classifiers, pairs, tmp_path):
    losses = []
    for engine in ("torch", "ort-training"):
        job = job_of(classifiers, engine, tmp_path / engine, pairs)
        assert job.facts(tmp_path)["pairs"] is True
        batch = job.task().evaluation()
        assert batch["types"].max() == 1
        assert (batch["types"] <= batch["mask"]).all()
        runtime = job.open_runtime()
        for value in runtime.parameters.values():  # random ones are too small to change a loss
            if value.ndim == 2:
                value *= 15
        found = runtime.forward(batch, [runtime.parameters])[0]
        blind = {name: value for name, value in batch.items() if name != "types"}
        # without the types the losses differ by far more than rounding
        assert np.abs(runtime.forward(blind, [runtime.parameters])[0] - found).max() > 1e-3
        losses.append(found)
        runtime.close()
        restored = open_job(job.recipe)
        restored.restore(tmp_path / engine, print)
        assert restored.data_sha256() == job.data_sha256()
    np.testing.assert_allclose(*losses, rtol=1e-4)  # of two engines in float32


def test_an_artifact_whose_graphs_cannot_tell_pairs_apart_is_refused(classifiers, pairs):
    recipe = ClassifyRecipe(data=str(pairs), model=str(classifiers.artifact), threads=1)
    job = open_job(recipe)
    manifest = job._model.manifest
    origin = {name: value for name, value in manifest.origin.items() if name != "text_types"}
    job._model = replace(job._model, manifest=replace(manifest, origin=origin))
    with pytest.raises(InputError, match="exported before pairs of texts were trained"):
        job.load()


def test_texts_that_lose_their_end_are_counted_and_said_once(classifiers, tmp_path):
    rows = [
        {"text": "the film is a story of two friends " * 3 + str(n), "label": n % 2}
        for n in range(40)
    ]
    data = write_table(tmp_path / "long.csv", [*rows, {"text": "short", "label": 1}])
    job = job_of(classifiers, "torch", tmp_path / "run", data, length=16)
    assert [line for line in job.notes if "lose" in line] == [
        "40 of 41 texts are longer than 16 tokens and lose their end (36 train, 4 dev); a longer "
        "--length keeps more of it, at most 24",
    ]
