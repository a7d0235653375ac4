"""Task `images` through the real command, without torch: trains, answers, resumes, refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from running import kill, run_to_the_end, steps_in
from tiny_backbone import SIDE, write_backbone, write_classes

from edge_train import cli
from edge_train.formats.tensor_store import load_tensors
from edge_train.tasks import open_job
from edge_train.tasks.images.classifier_file import load_classifier
from edge_train.tasks.images.recipe import ImagesRecipe
from edge_train.tasks.images.splits import split

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Return a folder with a backbone and classes; nobody writes into it."""
    folder = tmp_path_factory.mktemp("given")
    write_backbone(folder / "tiny.onnx")
    write_classes(folder / "pets")
    return folder


def words(given, *more, data="pets", backbone="tiny.onnx"):
    return (str(given / data), "--task", "images", "--model", str(given / backbone), *more)


def run(out, *words):
    status = cli.main(["run", *map(str, words), "--out", str(out), "--json"])
    assert status == 0
    return json.loads((out / "report.json").read_text())


def refused(capsys, *words, status=2):
    assert cli.main(["run", *map(str, words)]) == status
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pets"
    report = run(out, *words(given, "--steps", "100", "--head", "tversky", "--lr", "0.02"))
    return out, report


def test_pictures_are_told_apart_and_the_report_shows_what_stands_for_them(trained):
    out, report = trained
    assert report["status"] == "done"
    assert report["metrics"]["scored_on"] == "held-out"
    assert report["metrics"]["accuracy"] == 1.0
    assert report["eval"]["best"] < 0.5 * report["eval"]["first"]
    page = (out / "report.html").read_text()
    for title in ("What stands for each class", "What the learned features see", "infer"):
        assert title in page
    for strip in (*report["metrics"]["nearest"], *report["metrics"]["features"]):
        assert all((out / name).is_file() for name in strip["pictures"])
    first = report["metrics"]["nearest"][0]
    assert (first["name"], len(first["pictures"])) == ("cat", 4)


def test_a_picture_is_answered_with_its_class_and_another_thing_with_unknown(
    trained, given, tmp_path, capsys
):
    out, _ = trained
    stranger = tmp_path / "stranger.png"
    noise = np.random.default_rng(9).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(stranger)
    pictures = [given / "pets" / "dog" / "0.png", stranger]
    assert cli.main(["infer", str(out), *map(str, pictures)]) == 0
    known, unknown = capsys.readouterr().out.splitlines()
    assert known.startswith(f"{pictures[0]}: dog (")
    assert "unknown (nearest to" in unknown
    assert cli.main(["infer", str(out), str(given / "pets" / "owl"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["class"] for one in found].count("owl") >= 5
    assert all(0 <= one["probability"] <= 1 for one in found)


def test_answers_come_from_the_backbone_of_the_run_and_no_other(trained, tmp_path, capsys):
    other = write_backbone(tmp_path / "other.onnx", size=2.0)
    picture = str(tmp_path / "p.png")
    Image.new("RGB", (9, 9)).save(picture)
    assert cli.main(["infer", str(trained[0]), picture, "--model", str(other)]) == 2
    assert "is not the backbone" in capsys.readouterr().err
    assert cli.main(["infer", str(tmp_path), picture]) == 2
    assert "no recipe.toml; this is not a run folder" in capsys.readouterr().err
    assert cli.main(["infer", str(trained[0] / "samples"), picture]) == 2
    assert f"this is not a run folder. The run is {trained[0]}." in capsys.readouterr().err
    (tmp_path / "recipe.toml").write_text((trained[0] / "recipe.toml").read_text())
    assert cli.main(["infer", str(tmp_path), picture]) == 2
    assert "no classifier.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["zo", "tpsgd", "backprop", "local", "dfa", "drtp"])
def test_a_head_of_two_layers_learns_by_every_kind_of_method(method, given, tmp_path):
    report = run(
        tmp_path / "run",
        *words(given, "--method", method, "--head", "two-layer", "--head-size", "16"),
        *("--steps", "60", "--views", "1"),
    )
    assert report["method"] == method
    assert report["eval"]["best"] < report["eval"]["first"]


def test_killed_and_resumed_it_ends_with_the_same_bits(given, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    asked = ("run", *words(given, "--steps", "200", "--head", "cosine", "--samples", "8"))
    run_to_the_end(*asked, "--out", whole, out=whole)
    for records in (1, 20, 60):
        assert kill((*asked, "--out", out), out, records, 0.003)
    assert 0 < steps_in(out) < 200
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == 200
    name = "classifier.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_damaged_features_are_computed_again_and_lead_to_the_same_bits(given, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    asked = ("run", *words(given, "--steps", "150", "--samples", "8"))
    run_to_the_end(*asked, "--out", whole, out=whole)
    assert kill((*asked, "--out", out), out, 30, 0.003)
    (out / "features.safetensors").write_bytes(b"torn")
    run_to_the_end("run", "--resume", out, out=out)
    name = "classifier.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_new_class_is_learned_from_an_earlier_run_whose_features_are_kept(
    trained, given, tmp_path, capsys
):
    more = tmp_path / "more"
    shutil.copytree(given / "pets", more)
    write_classes(more, names=("ape",), seed=5)
    capsys.readouterr()
    out = tmp_path / "run"
    report = run(out, more, "--from", trained[0], "--steps", "40", "--data", more)
    said = capsys.readouterr()
    assert "18 pictures from the earlier run" in said.out + said.err
    assert report["metrics"]["class_names"] == ["ape", "cat", "dog", "owl"]
    before, after = (load_classifier(one / "classifier.safetensors") for one in (trained[0], out))
    assert before.head == after.head == "tversky"


def test_features_are_kept_by_content_and_views_follow_from_the_seed(given, tmp_path):
    rows = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        run(out, *words(given, "--steps", "1", "--seed", str(seed), "--views", "3"))
        rows.append(load_rows(out))
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0][0], rows[2][0])  # the whole picture
    assert (rows[0] != rows[2]).any()


def test_views_with_a_patch_are_not_taken_over_as_views_without(given, tmp_path):
    once, hard, after = (tmp_path / name for name in ("once", "hard", "after"))
    plain = words(given, "--steps", "1", "--views", "4")
    run(once, *plain)
    run(hard, *words(given, "--steps", "1", "--views", "2", "--patch-views", "2"))
    run(after, *plain, "--patch-views", "0", "--from", hard)
    np.testing.assert_array_equal(load_rows(after), load_rows(once))


def test_a_held_out_picture_is_no_witness_that_it_is_known(given, tmp_path):
    data = tmp_path / "pets"
    shutil.copytree(given / "pets", data)
    report = run(tmp_path / "before", *words(given, "--steps", "1", data=data))
    assert report["metrics"]["taken_for_unknown"] == 0
    place = split(np.repeat(np.arange(3), 6), np.zeros(18, bool), None).held_out[0]
    draw = np.random.default_rng(9)
    pixels = draw.integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(data / "cat" / f"{place}.png")
    report = run(tmp_path / "after", *words(given, "--steps", "1", data=data))
    assert report["metrics"]["scored_on"] == "held-out"
    assert report["metrics"]["taken_for_unknown"] == 1


def load_rows(out):
    from edge_train.tasks.images.features import open_features

    file = open_features(out / "features.safetensors")
    return file.rows(np.arange(file.starts[-1]))


def test_bad_input_gets_one_sentence(given, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no subfolder holds pictures" in refused(capsys, *words(given, data=tmp_path / "empty"))
    assert "there is no such folder" in refused(capsys, *words(given, data=tmp_path / "none"))
    one = write_classes(tmp_path / "one", names=("cat",))
    assert "all pictures are of one class" in refused(capsys, *words(given, data=one))
    broken = write_classes(tmp_path / "broken")
    (broken / "cat" / "0.png").write_bytes((broken / "cat" / "1.png").read_bytes()[:200])
    out = ("--out", tmp_path / "stopped")
    assert "cat/0.png: cannot be read" in refused(capsys, *words(given, *out, data=broken))
    assert not (tmp_path / "stopped").exists()
    message = refused(capsys, *words(given, "--resolution", "16"))
    assert f"reads pictures of {SIDE} pixels" in message
    assert "needs --model with a frozen backbone" in refused(
        capsys, given / "pets", "--task", "images"
    )
    (tmp_path / "net.pth").write_bytes(b"\x80\x02")
    message = refused(capsys, *words(given, backbone=tmp_path / "net.pth"))
    assert "pickle" in message and "--for backbone" in message
    assert "did you mean 'tversky'" in refused(capsys, *words(given, "--head", "tversy"))
    assert "head_size is not read" in refused(capsys, *words(given, "--head-size", "4"))
    write_backbone(tmp_path / "nan.onnx", size=np.inf)
    message = refused(capsys, *words(given, *out, backbone=tmp_path / "nan.onnx"))
    assert "are not finite" in message
    write_backbone(tmp_path / "flat.onnx", size=0.0)
    message = refused(capsys, *words(given, *out, backbone=tmp_path / "flat.onnx"))
    assert "the same features" in message
    (tmp_path / "no.onnx").write_bytes(b"no graph at all")
    assert "not an ONNX graph" in refused(capsys, *words(given, backbone=tmp_path / "no.onnx"))


def test_rare_and_doubtful_classes_are_said(given, tmp_path):
    data = write_classes(tmp_path / "data", names=("Dog", "dog"), count=5)
    write_classes(data, names=("owl",), count=1)
    report = run(tmp_path / "run", *words(given, "--steps", "2", data=data))
    notices = " ".join(report["notices"])
    assert "only one picture to train on: owl" in notices
    assert "differ in case only are told apart: Dog and dog" in notices
    assert "augmentation: 8 views" in notices


def test_a_table_names_the_classes_and_a_test_part_is_scored(given, tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        folder = write_classes(tmp_path / "data" / part, seed=seed)
        lines = ["file_name,label"]
        for file in sorted(folder.rglob("*.png")):
            lines.append(f"{file.relative_to(folder).as_posix()},{file.parent.name}")
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    report = run(tmp_path / "run", *words(given, "--steps", "60", data=tmp_path / "data"))
    assert report["metrics"]["scored_on"] == "test"
    assert report["metrics"]["scored_pictures"] == 18
    assert report["metrics"]["accuracy"] > 0.9


def test_a_table_of_paths_and_labels_is_data_of_its_own(given, tmp_path, capsys):
    folder = write_classes(tmp_path / "photos")
    lines = ["path,label"]
    for file in sorted(folder.rglob("*.png")):
        lines.append(f"photos/{file.relative_to(folder).as_posix()},{file.parent.name}")
    table = tmp_path / "some.csv"
    table.write_text("\n".join(lines) + "\n")
    (tmp_path / "stranger.png").write_bytes(b"no picture")  # not in the table, so not opened
    report = run(tmp_path / "run", *words(given, "--steps", "60", data=table))
    assert report["metrics"]["accuracy"] > 0.9
    assert "unknown_below_cosine" in report["metrics"]
    assert not [line for line in report["notices"] if "stranger" in line]
    picture = str(folder / "cat" / "0.png")
    assert cli.main(["infer", str(tmp_path / "run"), picture]) == 0
    assert "cat" in capsys.readouterr().out
    for content, says in (
        ("path,label\n../x.png,cat\n", "nothing outside of it is opened"),
        ("path,label\nphotos/none.png,cat\n", "there is no picture photos/none.png"),
        ("name,label\na.png,cat\n", "no column file_name or path"),
        ("path,kind\nphotos/cat/0.png,cat\n", "no column 'label'"),
        ("", "no examples in it"),
    ):
        table.write_text(content)
        assert says in refused(capsys, *words(given, data=table)), content
    (tmp_path / "some.txt").write_text("a")
    assert "it is no table" in refused(capsys, *words(given, data=tmp_path / "some.txt"))


def test_a_plan_counts_backbone_features_and_head(given, capsys):
    assert cli.main(["plan", *words(given, "--json")]) == 0
    told = json.loads(capsys.readouterr().out)
    plan = told["plan"]
    assert told["predicted_seconds"] > 0
    names = {line["name"] for phase in plan["phases"] for line in phase["lines"]}
    assert {"backbone", "head", "optimizer state and copies"} <= names


def test_the_file_of_a_classifier_is_checked(trained, tmp_path, capsys):
    shutil.copytree(trained[0], tmp_path / "run")
    path = tmp_path / "run" / "classifier.safetensors"
    tensors, _ = load_tensors(path)
    assert {"mean", "references", "head.tversky.bank"} <= set(tensors)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert cli.main(["infer", str(tmp_path / "run"), str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "checksum" in err or "no picture" in err


def test_a_rehearsal_computes_few_features_and_every_class_is_in_it(given, tmp_path):
    data = write_classes(tmp_path / "data", names=[f"c{n}" for n in range(70)], count=3, side=8)
    job = open_job(ImagesRecipe(data=str(data), model=str(given / "tiny.onnx")))
    job.judge_less()
    job.load()
    assert [sample.label for sample in job._samples] == list(range(70))
