"""Each of six published methods, killed ten times under its cap: same bits, cap held from outside.

The peak is what the kernel says of the largest process when all have ended, not what a run says.
"""

import json
import random
import sys

import numpy as np
import pytest
from classifiers import make_data
from running import SUPPORT, Command, run_to_the_end, steps_in
from tiny_backbone import write_backbone, write_classes
from tiny_encoder import make_encoder, make_notes

pytestmark = [pytest.mark.process, pytest.mark.slow]

KILLS = 10
# Runs what follows, and writes the largest resident size that any process of it ever had.
_MEASURED = (
    "import resource, subprocess, sys\n"
    "status = subprocess.call(sys.argv[2:])\n"
    "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n"
    "open(sys.argv[1], 'a').write(f'{peak}\\n')\n"
    "sys.exit(status if status >= 0 else 200)\n"
)
_ENDED = 200


def _classifier(folder):
    pytest.importorskip("torch")
    from edge_train.bench.small_classifier import make_classifier

    data = make_data(folder / "texts")
    texts = [line.split("\t")[0] for line in (data / "train.tsv").read_text().splitlines()]
    model = folder / "classifier"
    make_classifier(model, texts, kind="bert", layers=3, width=32, vocabulary=80, positions=24)
    return (
        *("--task", "classify", "--data", data, "--model", model, "--samples", "8"),
        *("--steps", "400", "--evaluate-every", "200", "--threads", "1"),
    )


def _low_rank(*more):
    rank = ("--rank", "4", "--refresh-every", "7", "--scale", "4", "--lr", "5e-3")
    return lambda folder: (*_classifier(folder), *rank, *more)


def _colm(folder):
    words = list(_classifier(folder))
    lines = (folder / "texts" / "train.tsv").read_text().splitlines()
    with (folder / "texts.jsonl").open("w") as file:
        for number, line in enumerate(lines):
            text, label = line.split("\t")
            source = ("news", "chat", "news", "news")[number % 4]
            file.write(json.dumps({"text": text, "label": label, "source": source}) + "\n")
    words[words.index(folder / "texts")] = folder / "texts.jsonl"
    chosen = ("--batch-selection", "colm", "--candidates", "32", "--sources", "source")
    return (*words, "--method", "adamw", "--lr", "1e-3", *chosen)


def _tasks(folder):
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        arrays = {}
        for part, count in (("train", 300), ("test", 60)):
            arrays[f"{part}_images"] = draw.integers(0, 255, (count, 8, 8), np.uint8)
            arrays[f"{part}_labels"] = np.arange(count) % 4
        np.savez(folder / f"{name}.npz", **arrays)
    first = (
        *("run", "--task", "network", "--data", folder / "a.npz", "--network", "mlp 32 16"),
        *("--method", "backprop", "--lr", "0.05", "--samples", "10", "--steps", "300"),
    )
    run_to_the_end(*first, "--out", folder / "first", out=folder / "first")
    return ("--next", folder / "first", "--data", folder / "b.npz", "--steps", "6000")


def _images(folder):
    write_classes(folder / "pets", count=12)
    write_backbone(folder / "tiny.onnx")
    return (
        *("--task", "images", "--data", folder / "pets", "--model", folder / "tiny.onnx"),
        *("--head", "tversky", "--lr", "0.02", "--steps", "4000", "--threads", "1"),
    )


def _search(folder):
    model, notes = make_encoder(folder / "model"), make_notes(folder / "notes", 40)
    return (
        *("--task", "retrieve", "--data", notes, "--model", model, "--steps", "2000"),
        *("--samples", "8", "--threads", "1"),
    )


# what it trains, its cap, and the files that have to be the same
CASES = {
    "owlore": (
        _low_rank(
            *("--method", "galore", "--block-schedule", "owlore", "--sampled-layers", "1"),
            *("--resample-every", "5"),
        ),
        "900MB",
        ("model/model.safetensors",),
    ),
    "gradnormlorp": (
        _low_rank("--method", "gradnormlorp8bit"),
        "900MB",
        ("model/model.safetensors",),
    ),
    "colm": (_colm, "900MB", ("model/model.safetensors",)),
    "cuber": (_tasks, "150MB", ("network.safetensors", "tasks.safetensors")),
    "images": (_images, "200MB", ("classifier.safetensors",)),
    "retrieve": (
        _search,
        "300MB",
        ("index/index.safetensors", "index/tokens.bin", "head/head.onnx"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_killed_ten_times_under_its_cap_it_ends_with_the_same_bits(name, tmp_path):
    make, cap, files = CASES[name]
    peaks = tmp_path / "peaks"
    words = ("run", *make(tmp_path), "--mem", cap)
    whole, out, draws = tmp_path / "whole", tmp_path / "run", random.Random(0)

    def measured(*script, out):
        own = ("-c", _MEASURED, str(peaks), sys.executable, *map(str, script))
        with Command(out=out, script=own, OMP_NUM_THREADS="1") as command:
            status = command.wait()
            assert status in (0, _ENDED), command.err
            return status == _ENDED

    assert not measured("-m", "edge_train", *words, "--out", whole, out=whole)
    steps = steps_in(whole)
    landed = []
    for number in range(KILLS):
        started = (out / "recipe.toml").exists()
        again = ("run", "--resume", out) if started else (*words, "--out", out)
        # one dies while it starts, the others at an instant some steps further on
        records = 0 if number == 3 else draws.randrange(1, 20)
        seconds = draws.uniform(0.05, 0.2) if number == 3 else draws.uniform(0.001, 0.03)
        dying = (SUPPORT / "dying.py", records, seconds)
        assert measured(*dying, *again, out=out), f"over before kill {number + 1} of {KILLS}"
        landed.append(steps_in(out))
    assert landed == sorted(landed) and landed[-1] < steps  # a resumed run loses no step
    assert len(set(landed)) >= KILLS // 2
    assert not measured("-m", "edge_train", "run", "--resume", out, out=out)
    assert steps_in(out) == steps
    for file in files:
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file
    found = [int(line) for line in peaks.read_text().split()]
    report = json.loads((out / "report.json").read_text())
    assert len(found) == KILLS + 2
    assert max(found) <= report["cap_bytes"]
    print(f"{name}: killed at {landed} of {steps} steps; {max(found) / 1e6:.0f} MB of {cap}")
