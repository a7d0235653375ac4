"""Every command answers in one sentence with the right exit status, on good and on bad input."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_train import cli
from edge_train.cli.verbs import BENCHES

torch = pytest.importorskip("torch")

from tiny_models import make_tiny_model  # noqa: E402 - needs torch

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "sd1", "sd1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def finished(model, photos, tmp_path_factory):
    """A short run that is done."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(photos, model, out, "--method", "zo", "--steps", "6", "--threads", "2") == 0
    return out


def run(photos, model, out, *options):
    arguments = ["run", str(photos), "--model", str(model), "--class", "dog", "--out", str(out)]
    return cli.main([*arguments, "--json", "--preview-steps", "2", "--threads", "1", *options])


def refused(capsys, status, *arguments):
    """Run a command that must fail; return its one sentence."""
    assert cli.main(list(map(str, arguments))) == status
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("edge-train: ")
    assert "Traceback" not in message
    return message


def test_a_run_leaves_everything_the_contract_names(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "recipe.toml",
        "journal.jsonl",
        "checkpoints",
        "samples",
        "report.json",
        "report.html",
        "my-dog.safetensors",
    }
    report = json.loads((finished / "report.json").read_text())
    assert report["status"] == "done"
    assert report["backwards"] == 0
    assert report["forwards"] >= 6 * 5
    assert report["measured_peak_bytes"] > 10_000_000
    assert report["outputs"]["token"] == "my-dog.safetensors"
    assert len(list((finished / "samples").glob("*.png"))) == 3 + 2


def test_a_run_whose_pictures_fail_keeps_its_word_and_its_report(
    model, photos, tmp_path, capsys, monkeypatch
):
    def broken(*arguments, **keywords):
        raise IndexError("index 1000 is out of bounds")

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("edge_train.tasks.personalize.pictures.sample", broken)
        few = ("--method", "zo", "--steps", "2", "--preview-every", "1")
        assert run(photos, model, out, *few) == 0
    said = "pictures could not be drawn (IndexError: index 1000 is out of bounds)"
    assert said in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["steps"]) == ("done", 2)
    assert (out / report["outputs"]["token"]).is_file()
    page = (out / "report.html").read_text()
    assert said in page and "no previews: IndexError" in page
    assert cli.main(["generate", str(out), "--count", "1", "--steps", "2"]) == 0


@pytest.mark.parametrize("method", ["zo", "backprop"])
@pytest.mark.parametrize("quant", ["none", "int8"])
def test_every_method_learns_with_every_quantization(model, photos, tmp_path, method, quant):
    options = ("--method", method, "--quant", quant, "--steps", "4", "--vectors", "2")
    assert run(photos, model, tmp_path / "run", *options) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["method"], report["quant"]) == (method, quant)
    assert (report["backwards"] > 0) == (method == "backprop")


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_other_families_run_through_the_same_command(photos, tmp_path, family):
    model = make_tiny_model(tmp_path / family, family)
    assert run(photos, model, tmp_path / "run", "--steps", "3") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["status"] == "done"


def test_the_preset_of_the_paper_runs(model, photos, tmp_path):
    assert run(photos, model, tmp_path / "run", "--preset", "zoodip", "--steps", "5") == 0
    recipe = (tmp_path / "run" / "recipe.toml").read_text()
    assert "epsilon = 0.001" in recipe and "window = [500, 900]" in recipe


def test_generate_makes_pictures_and_a_sheet(finished, capsys):
    assert cli.main(["generate", str(finished), "--count", "2", "--steps", "2"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["picture-01.png", "picture-02.png", "sheet.png"]
    for path in paths:
        Image.open(path).verify()


def test_report_is_rebuilt_from_the_journal_alone(finished):
    before = (finished / "report.json").read_text()
    (finished / "report.json").unlink()
    assert cli.main(["report", str(finished)]) == 0
    assert (finished / "report.json").read_text() == before


def test_diffusers_spellings_are_understood(model, photos, tmp_path):
    words = (
        f"run --pretrained_model_name_or_path {model} --train_data_dir {photos} "
        "--placeholder_token <cat-toy> --initializer_token dog --learnable_property object "
        "--max_train_steps 2 --train_batch_size 1 --learning_rate 1e-3 --num_vectors 1 "
        f"--mixed_precision no --seed 1 --output_dir {tmp_path / 'run'} --preview-steps 1 --json"
    )
    assert cli.main(words.split()) == 0
    assert (tmp_path / "run" / "cat-toy.safetensors").exists()
    recipe = (tmp_path / "run" / "recipe.toml").read_text()
    assert "learning_rate = 0.001" in recipe and 'dtype = "float32"' in recipe


@pytest.mark.parametrize("flag", ["--report_to", "--push_to_hub", "--scale_lr", "--steps=x"])
def test_a_flag_that_cannot_be_honored_is_refused_by_name(flag, capsys):
    assert cli.main(["run", flag]) == 2
    assert flag.split("=")[0].lstrip("-") in capsys.readouterr().err


def test_json_events_are_one_object_a_line(model, photos, tmp_path, capsys):
    assert run(photos, model, tmp_path / "run", "--steps", "3") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(events) >= 5


def test_doctor_names_engine_and_memory(capsys):
    assert cli.main(["doctor"]) == 0
    found = capsys.readouterr().out
    assert "torch" in found and "onnxruntime" in found and "memory" in found


# ---- bad input ------------------------------------------------------------------------------


def test_missing_photos(model, tmp_path, capsys):
    message = refused(capsys, 2, "run", tmp_path / "none", "--model", model)
    assert "none" in message


def test_an_empty_folder(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    said = refused(capsys, 2, "run", tmp_path / "empty", "--model", model)
    assert said.endswith("empty: the folder is empty; name another one.")


def test_a_text_file_called_jpg(model, photos, tmp_path, capsys):
    (tmp_path / "a.jpg").write_text("hello")
    assert "a.jpg" in refused(capsys, 2, "run", tmp_path, "--model", model)


def test_a_token_already_in_the_vocabulary(model, photos, tmp_path, capsys):
    message = refused(capsys, 2, "run", photos, "--model", model, "--token", "dog")
    assert "dog" in message and "vocabulary" in message


def test_a_class_word_of_several_tokens_is_averaged_and_said(model, photos, tmp_path, capsys):
    arguments = ["run", str(photos), "--model", str(model), "--class", "zebra", "--steps", "1"]
    options = ["--token", "<x>", "--out", str(tmp_path / "run"), "--preview-steps", "1", "--json"]
    assert cli.main([*arguments, *options]) == 0
    assert re.search(r"'zebra' is \d tokens", capsys.readouterr().out)


def test_an_unknown_model(photos, capsys):
    message = refused(capsys, 2, "run", photos, "--model", "no such model")
    assert "no such model" in message


def test_a_damaged_weight_file(photos, tmp_path, capsys):
    model = make_tiny_model(tmp_path / "m", "sd1")
    (file,) = (model / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    message = refused(
        capsys, 2, "run", photos, "--model", model, "--class", "dog", "--out", tmp_path / "r"
    )
    assert "unet" in message


def test_pickle_only_weights(photos, tmp_path, capsys):
    model = make_tiny_model(tmp_path / "m", "sd1")
    (file,) = (model / "unet").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    message = refused(capsys, 2, "run", photos, "--model", model, "--class", "dog")
    assert "pickle" in message


def test_weights_that_are_not_finite(photos, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    model = make_tiny_model(tmp_path / "m", "sd1")
    (file,) = (model / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors["conv_in.bias"][:] = np.nan
    save_file(tensors, file)
    arguments = ("run", photos, "--model", model, "--class", "dog", "--out", tmp_path / "r")
    assert "not finite" in refused(capsys, 2, *arguments)


def test_a_run_folder_in_use(finished, model, photos, capsys):
    arguments = ("run", photos, "--model", model, "--class", "dog", "--out", finished)
    assert "--resume" in refused(capsys, 2, *arguments)


def test_resuming_what_is_no_run(tmp_path, capsys):
    assert "recipe.toml" in refused(capsys, 2, "run", "--resume", tmp_path)


@pytest.mark.parametrize(
    "words",
    ["--samples 9", "--data x", "--no-flips", "--recipe x", "--class dog"],
)
def test_a_run_is_resumed_as_it_was_recorded_and_the_flag_is_named(finished, capsys, words):
    message = refused(capsys, 2, "run", "--resume", finished, *words.split())
    assert words.split()[0] in message
    assert "Only --mem, --host-mem, --steps, --time and --when can change" in message
    assert "task" not in message


def test_resuming_a_finished_run_changes_nothing(finished):
    before = (finished / "my-dog.safetensors").read_bytes()
    assert cli.main(["run", "--resume", str(finished), "--json"]) == 0
    assert (finished / "my-dog.safetensors").read_bytes() == before


def test_resuming_with_another_model(photos, tmp_path, capsys):
    model = make_tiny_model(tmp_path / "m", "sd1")
    assert run(photos, model, tmp_path / "run", "--steps", "3") == 0
    (file,) = (model / "unet").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "sha256" in refused(capsys, 2, "run", "--resume", tmp_path / "run")


def test_a_cap_below_what_is_held_before_training_starts_nothing(model, photos, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ("run", photos, "--model", model, "--class", "dog", "--out", out)
    message = refused(capsys, 2, *arguments, "--mem", "20MB", "--preview-steps", "1")
    assert "20 MB" in message and "--mem" in message
    assert run(photos, model, out, "--steps", "2") == 0  # the folder is free to use


def test_a_cap_that_is_no_size(photos, model, capsys):
    assert "8GB" in refused(capsys, 2, "run", photos, "--model", model, "--mem", "much")


def test_an_unwritable_place(model, photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    arguments = ("run", photos, "--model", model, "--class", "dog", "--out", out)
    assert "cannot be made" in refused(capsys, 2, *arguments)


def test_a_resolution_that_does_not_fit_the_model(model, photos, capsys):
    arguments = ("run", photos, "--model", model, "--class", "dog", "--resolution", "33")
    assert "33" in refused(capsys, 2, *arguments)


def test_report_of_what_is_no_run(tmp_path, capsys):
    refused(capsys, 2, "report", tmp_path)


def test_generate_before_anything_was_learned(finished, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_bytes((finished / "recipe.toml").read_bytes())
    assert "--resume" in refused(capsys, 2, "generate", tmp_path)


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from edge_train.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("limit", "status"), [(3_000, 2), (26_000, 3)])
def test_no_room_for_a_file_is_one_sentence_and_what_was_learned_is_kept(
    model, photos, tmp_path, limit, status
):
    out = tmp_path / "run"
    arguments = ["run", photos, "--model", model, "--class", "dog", "--out", out]
    options = ["--steps", "5", "--preview-steps", "1", "--json"]
    command = [sys.executable, "-c", FULL_DISK.format(limit=limit), *arguments, *options]
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("edge-train: ") and "cannot be written" in message
    if status == 3:
        assert (out / "my-dog.safetensors").exists()
        assert cli.main(["run", "--resume", str(out), "--json"]) == 0
        assert json.loads((out / "report.json").read_text())["status"] == "done"


@pytest.mark.parametrize("name", ["ort-training", "tpsgd"])
def test_a_bench_without_the_data_it_needs_says_so(name, tmp_path, capsys):
    assert cli.main(["bench", name, "--out", str(tmp_path)]) == 2
    assert "--data FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_runs_without_options_of_its_own(name):
    try:
        bench = importlib.import_module(f"edge_train.bench.{name.replace('-', '_')}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("edge_train"):
            raise
        pytest.skip(f"{error.name} is not installed")
    inspect.signature(bench.main).bind(Path(), 1)


def test_help_and_a_new_recipe_say_the_defaults_of_the_method_that_auto_takes(capsys):
    assert cli.main(["run", "--task", "personalize", "--help"]) == 0
    said = capsys.readouterr().out
    assert "most training steps (default: 300)" in said
    assert "start value's root mean square (default" not in said  # its steps have no rate
    assert cli.main(["init", "--task", "personalize"]) == 0
    recipe = capsys.readouterr().out
    assert "# steps = 300" in recipe and "# relative_rate =  #" in recipe
