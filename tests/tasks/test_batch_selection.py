"""Runs that choose their batches: what they say, count and refuse, by the real command."""

import json

import numpy as np
import pytest
from classifiers import make_data, make_tiny_classifier
from running import kill, records_of, run_to_the_end, steps_in
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.protocols import HasSources
from edge_train.tasks import open_job
from edge_train.tasks.classify.recipe import ClassifyRecipe

pytest.importorskip("torch")

pytestmark = pytest.mark.process
CHOOSES = ("--batch-selection", "colm", "--batch-size", "4", "--candidates", "16")
SELECTIONS = ("colm", "colm-zo", "loss", "random")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Texts of three sources, one of a single example, with a classifier and a small Llama."""
    from edge_train.bench.small_llama import write_folder

    folder = tmp_path_factory.mktemp("places")
    data = make_data(folder / "plain")
    make_tiny_classifier(folder / "classifier", data)
    lines = (data / "train.tsv").read_text().splitlines()
    names = [("news", "chat", "news")[n % 3] for n in range(len(lines))]
    names[7] = "rare"
    with (folder / "texts.jsonl").open("w") as file:
        for line, name in zip(lines, names, strict=True):
            text, label = line.split("\t")
            file.write(json.dumps({"text": text, "label": label, "source": name}) + "\n")
    write_folder(
        folder / "llama",
        folder / "texts.jsonl",
        280,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return folder


def words(places, task, out, *options):
    model = {"classify": "classifier", "language-model": "llama"}[task]
    length = ("--length", "12") if task == "language-model" else ()
    few = ("--steps", "6", "--evaluate-every", "3", "--threads", "1", "--sources", "source")
    return (
        *("run", "--task", task, "--model", str(places / model), "--out", str(out), *few, *length),
        *("--data", str(places / "texts.jsonl"), *options),
    )


@pytest.mark.parametrize("task", ["classify", "language-model"])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_selection_trains_the_small_batch_and_counts_the_large_one(
    places, tmp_path, task, selection, capsys
):
    out = tmp_path / "run"
    options = (*CHOOSES, "--batch-selection", selection)
    assert cli.main([*words(places, task, out, *options)]) == 0
    report = json.loads((out / "report.json").read_text())
    steps = [record for record in records_of(out) if record["kind"] == "step"]
    assert report["backwards"] == 6 * 4
    scored = 0 if selection == "random" else 16
    assert steps[0]["forwards"] == scored + 4
    if scored:
        assert 0 < report["selection_seconds"] < report["seconds_total"]
    else:
        assert report["selection_seconds"] is None
    assert "3 sources: chat " in capsys.readouterr().err


def test_a_plan_counts_the_small_batch_and_what_choosing_holds(places, tmp_path):
    def peak(*options):
        words = dict(zip(options[::2], options[1::2], strict=True))
        recipe = ClassifyRecipe(
            model=str(places / "classifier"),
            data=str(places / "texts.jsonl"),
            threads=1,
            **words,
        )
        held = open_job(recipe).footprint()
        return held.workspace["train"], {line.name: line.bytes for line in held.known["train"]}

    small, lines = peak("samples", 4, "batch_selection", "colm")
    assert small == peak("samples", 4)[0] < peak("samples", 16)[0]
    assert lines["batch selection"] > 0


def test_sources_reach_the_objective(places, tmp_path):
    recipe = ClassifyRecipe(
        model=str(places / "classifier"),
        data=str(places / "texts.jsonl"),
        threads=1,
        batch_selection="colm",
        samples=4,
        sources="source",
    )
    job = open_job(recipe)
    job.load()
    job.prepare(tmp_path, lambda line: None)
    task = job.task()
    from edge_train.rng import Key

    batch = task.batch(Key(0, 0))
    assert isinstance(task, HasSources) and len(batch["source"]) == 16
    assert len(task.source_sizes) == 3 and task.source_sizes.sum() == len(task.train)
    assert 1 in task.source_sizes  # the single example


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((*CHOOSES, "--sources", "origin"), "no column 'origin' (--sources); it has"),
        ((*CHOOSES, "--candidates", "3"), "--candidates 3: a step trains 4 of them"),
        ((*CHOOSES, "--candidates", "5000"), "draws 5000 samples a step, but there are"),
        (("--batch-size", "4"), "sources is read by batch selections"),
        (("--batch-selection", "coln"), "did you mean 'colm'"),
    ],
)
@pytest.mark.parametrize("task", ["classify", "language-model"])
def test_what_cannot_be_chosen_from_is_one_sentence(places, tmp_path, task, options, says, capsys):
    out = tmp_path / "run"
    status = cli.main([*words(places, task, out, *options)])
    found = capsys.readouterr().err
    assert status == 2 and says in found
    assert "Traceback" not in found


def test_other_tasks_refuse_in_a_sentence(tmp_path, capsys):
    few = ("--out", str(tmp_path / "run"), "--steps", "2")
    assert cli.main(["run", "--task", "personalize", *few, "--batch-selection", "colm"]) == 2
    assert "--batch-selection colm is not for task 'personalize'" in capsys.readouterr().err


def test_killed_and_resumed_it_ends_with_the_same_bits(places, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    more = ("--steps", "40", *CHOOSES)
    run_to_the_end(*words(places, "language-model", whole, *more), out=whole)
    assert kill(words(places, "language-model", out, *more), out, 7, 0.02)
    assert 0 < steps_in(out) < 40
    run_to_the_end("run", "--resume", out, out=out)
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (whole, out))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
