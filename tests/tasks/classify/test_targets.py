"""Numbers as targets, and what else a batch may say: through real runs of a tiny model."""

import json
import shutil

import numpy as np
import pytest
from classifiers import make_data, make_tiny_classifier
from page_lines import lines_to_copy

from edge_train import cli
from edge_train.errors import InputError
from edge_train.records import journal
from edge_train.tasks.classify.numbers import load_numbers

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.process

FEW = ("--samples", "8", "--threads", "1", "--length", "16", "--evaluate-every", "5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder of classes, one of numbers (how many warm words, halved), and a model."""
    root = tmp_path_factory.mktemp("targets")
    classes = make_data(root / "classes", count=60)
    numbers = root / "numbers"
    numbers.mkdir()
    draw = np.random.default_rng(0)
    for name, size in (("train", 80), ("dev", 24)):
        counts = draw.integers(0, 5, size)
        lines = [f"{'warm ' * n}{'dull ' * (5 - n)}film\t{n / 2}\n" for n in counts]
        (numbers / f"{name}.tsv").write_text("text\tlabel\n" + "".join(lines))
    return classes, numbers, make_tiny_classifier(root / "model", classes)


def run(data, model, out, *words):
    words = ("--data", data, "--model", model, "--out", out, *FEW, *words)
    assert cli.main(["run", "--task", "classify", *map(str, words)]) == 0
    return json.loads((out / "report.json").read_text())


def plain(folder, tmp_path, **changes):
    """Return a copy of a model folder with another configuration and no head."""
    from safetensors.numpy import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    weights = load_file(copy / "model.safetensors")
    save_file(
        {n: v for n, v in weights.items() if not n.startswith("classifier")},
        copy / "model.safetensors",
    )
    return copy


def test_numbers_are_learned_and_others_get_the_same_ones(folders, tmp_path):
    _, numbers, model = folders
    out = tmp_path / "run"
    words = ("--objective", "regression", "--steps", "60", "--learning-rate", "3e-3")
    report = run(numbers, plain(model, tmp_path), out, *words)
    metrics = report["metrics"]
    assert metrics["pearson"] > 0.9
    assert metrics["spearman"] > 0.9
    assert report["eval"]["best"] < report["eval"]["first"]
    saved = transformers.AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    assert saved.config.problem_type == "regression"
    assert saved.config.num_labels == 1
    from edge_train.formats.tensor_store import load_tensors
    from edge_train.tasks.classify.objective import TokenizedTexts

    torch = pytest.importorskip("torch")
    texts = TokenizedTexts.from_tensors("dev", load_tensors(out / "start.safetensors")[0])
    batch = texts.batch(np.arange(len(texts)))
    with torch.no_grad():
        found = saved(
            input_ids=torch.from_numpy(batch["ids"]), attention_mask=torch.from_numpy(batch["mask"])
        ).logits[:, 0]
    error = np.square(found.numpy() - batch["labels"]).mean()
    assert error == pytest.approx(metrics["mean_squared_error"], rel=1e-3)
    off = [abs(float(one["found"]) - float(one["label"])) for one in metrics["mistakes"]]
    given = np.abs(found.numpy() - batch["labels"])
    np.testing.assert_allclose(off, np.sort(given)[::-1][:8], atol=1e-2)  # four digits are kept
    page = (out / "report.html").read_text()
    assert "number was furthest off" in page
    assert 'function_to_apply="none"' in lines_to_copy(out / "report.html")["transformers"]


def test_dropout_weights_smoothing_and_clipping_resume_to_the_same_bits(folders, tmp_path):
    classes, _, model = folders
    config = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
    copy = shutil.copytree(model, tmp_path / "model")
    known = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**known, **config}))
    out = tmp_path / "run"
    more = ("--dropout", "--class-weights", "1,2", "--label-smoothing", "0.1", "--clip", "0.5")
    report = run(classes, copy, out, "--steps", "8", *more)
    assert {"accuracy", "macro_f1", "matthews"} <= report["metrics"].keys()
    weights = (out / "model" / "model.safetensors").read_bytes()
    book = out / "journal.jsonl"
    steps = [r for r in journal.read(book)[0] if r["kind"] == "step"]
    lines = book.read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if b'"step":4,' in line)
    book.write_bytes(b"".join(lines[:cut]))
    for path in (out / "checkpoints").glob("*-0000000[5-8].safetensors"):
        path.unlink()
    assert cli.main(["run", "--resume", str(out)]) == 0
    again = [r for r in journal.read(book)[0] if r["kind"] == "step"]
    assert [r["loss"] for r in again] == [r["loss"] for r in steps]
    assert [r["gradient_norm"] for r in again] == [r["gradient_norm"] for r in steps]
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_what_is_no_number_is_named(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("text\tlabel\ngood film\t4.5\nbad film\tpoor\n")
    with pytest.raises(InputError, match="'poor' is no number"):
        load_numbers(path)
    path.write_text("text\tlabel\ngood film\t4\nbad film\t4.0\nold film\t4\n")
    with pytest.raises(InputError, match="the same number"):
        load_numbers(path)
