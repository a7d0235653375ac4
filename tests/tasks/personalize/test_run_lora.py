"""A LoRA of a Stable Diffusion through the command line: trained, resumed, drawn, refused."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_models import make_tiny_model

from edge_train import cli
from edge_train.errors import InputError
from edge_train.estimators.remembering import Remembering
from edge_train.formats.diffusion_adapter import DIFFUSERS_FILE, write_lora
from edge_train.formats.embedded import EMBEDDED
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.adapting import trigger_of
from edge_train.tasks.personalize.encoding import load_job_photos
from edge_train.tasks.personalize.job import PersonalizeJob
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

pytest.importorskip("torch")
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "sd1", "sd1")


def words(photos, model, out, *options):
    first = ["run", str(photos), "--model", str(model), "--out", str(out), "--class", "dog"]
    few = ["--token", "<my-dog>", "--trainable", "lora", "--rank", "4", "--alpha", "2"]
    few += ["--steps", "6", "--samples", "2", "--evaluation-samples", "4", "--threads", "1"]
    few += ["--evaluate-every", "2", "--preview-steps", "2", "--prompt", "a photo of {}"]
    few += ["--learning-rate", "1e-2"]
    return [*first, *few, *options]


@pytest.fixture(scope="module")
def finished(photos, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    assert cli.main(words(photos, model, out)) == 0
    return out


def lora_of(run):
    return load_file(run / "lora" / DIFFUSERS_FILE)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_a_run_leaves_two_files_pictures_and_a_report_that_says_how_to_load_them(finished):
    report = json.loads((finished / "report.json").read_text())
    assert (report["status"], report["runtime"], report["method"]) == ("done", "torch", "backprop")
    assert report["outputs"]["lora"] == "lora"
    assert report["eval"]["best"] < report["eval"]["first"]
    assert not (finished / "my-dog.safetensors").exists()  # no vectors beside it
    assert any(np.abs(value).max() > 0 for name, value in lora_of(finished).items() if "up" in name)
    kohya = load_file(finished / "lora" / "my-dog.safetensors")
    assert {float(value) for name, value in kohya.items() if name.endswith(".alpha")} == {2.0}
    page = (finished / "report.html").read_text()
    assert "load_lora_weights" in page and "&lt;lora:my-dog:1&gt;" in page
    assert "a photo of my-dog dog" in page
    assert len(list((finished / "samples").glob("after-*.png"))) == 1


def test_both_files_say_what_they_are_of_and_no_place_on_this_machine(finished, model):
    for name in (DIFFUSERS_FILE, "my-dog.safetensors"):
        with safe_open(finished / "lora" / name, "numpy") as file:
            metadata = file.metadata()
        report = json.loads((finished / "report.json").read_text())
        assert metadata["base_model_sha256"] == report["model_sha256"]
        assert metadata["trigger"] == "my-dog dog"
        assert metadata["base_model"] == model.name
        assert str(model.parent) not in str(metadata)


def test_resumed_from_its_journal_it_ends_with_the_same_bits(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(out / "lora")
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").mkdir()
    lines = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"kind":"step"' not in line or b'"step":5' not in line]
    kept = [line for line in kept if b'"kind":"end"' not in line]
    (out / "journal.jsonl").write_bytes(b"".join(kept))
    assert cli.main(["run", "--resume", str(out)]) == 0
    assert_equal(lora_of(out), lora_of(finished))


def test_a_finished_run_draws_more_pictures(finished, tmp_path):
    out = tmp_path / "pictures"
    options = ["--count", "2", "--steps", "2", "--prompt", "a dog", "--out", str(out)]
    assert cli.main(["generate", str(finished), *options]) == 0
    assert len(list(out.glob("*.png"))) == 3  # two and a contact sheet


@pytest.mark.parametrize("out", [".", "inner"])
def test_generate_prints_paths_that_exist(finished, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    options = ["--count", "1", "--steps", "1", "--prompt", "a dog", "--out", out]
    assert cli.main(["generate", str(finished), *options]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in printed] == ["picture-01.png", "sheet.png"]
    assert all(path.is_file() for path in printed)


def test_generate_draws_the_pictures_that_the_run_drew(finished, tmp_path):
    out = tmp_path / "pictures"
    options = ["--count", "1", "--steps", "2", "--out", str(out)]
    assert cli.main(["generate", str(finished), *options]) == 0
    drawn = np.asarray(Image.open(out / "picture-01.png"), np.int16)
    before = np.asarray(Image.open(finished / "samples" / "before-01.png"), np.int16)
    after = np.asarray(Image.open(finished / "samples" / "after-01.png"), np.int16)
    # a scale of a half is exact, so that the file gives the trained numbers back
    np.testing.assert_array_equal(drawn, after)
    assert np.abs(after - before).max() > 0


def test_a_run_starts_from_the_lora_of_another(finished, photos, model, tmp_path):
    out = tmp_path / "next"
    options = words(photos, model, out, "--from", str(finished), "--no-previews")
    options[options.index("--learning-rate") + 1] = "1e-9"
    assert cli.main(options) == 0
    for name, value in lora_of(out).items():
        np.testing.assert_allclose(value, lora_of(finished)[name], atol=1e-7)


def test_a_lora_of_another_base_is_refused(finished, photos, tmp_path, capsys):
    other = make_tiny_model(tmp_path / "sd1", "sd1", widths=(32, 48))
    arguments = words(photos, other, tmp_path / "run", "--from", str(finished))
    assert cli.main(arguments) == 2
    assert "its LoRA was trained on model" in capsys.readouterr().err
    same_shapes = make_tiny_model(tmp_path / "same", "sd1")
    path = same_shapes / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1}, path)
    arguments = words(photos, same_shapes, tmp_path / "run", "--from", str(finished))
    assert cli.main(arguments) == 2
    assert "its LoRA was trained on model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--rank", "4000"), "use a --rank of at most 64"),
        (("--targets", "to_x"), "targets names 'to_x', which no linear layer"),
        (("--targets", "to_out"), "did you mean 'to_out.0'? "),
        (("--targets", "ALL-LINEAR"), "to_out.0, to_q, to_v, all-linear."),
        (("--targets", ", "), "names no layer; name some, such as to_q"),
        (("--prompt", "a cat"), "write for example 'a photo of <my-dog>'.\n"),
        (("--token", "dog", "--class-count", "2"), "prompts would say 'dog' both for what is"),
        (("--targets", "to_k", "--train-text-encoder"), "names no layer of a text encoder"),
        (("--vectors", "2"), "a LoRA is learned without vectors of its own"),
        (("--method", "zo"), "trained by exact gradients, not by method 'zo'"),
        (("--relative-rate", "0.1"), "half of a LoRA's are zero; use --learning-rate"),
        (("--trainable", "dora"), "trainable 'dora' is not known"),
        (("--trainable", "token"), "is of a LoRA, and this run learns the vectors of a word"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(photos, model, tmp_path, capsys, options, sentence):
    assert cli.main(words(photos, model, tmp_path / "run", *options)) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_one_photo_is_trained_and_what_it_cannot_show_is_said(photos, model, tmp_path, capsys):
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(photos / "0.png", folder / "a.png")
    Image.new("L", (24, 20), 255).save(folder / "a.mask.png")  # smaller, in the same shape
    out = tmp_path / "run"
    assert cli.main(words(folder, model, out, "--no-previews", "--steps", "2")) == 0
    said = capsys.readouterr()
    said = said.out + said.err
    assert "1 photo of one thing" in said and "1 photo and its mirror image" in said
    assert "one photo does not show what belongs to the thing" in said
    assert "masks of another size than their photo, resized with it: a.png" in said
    notices = json.loads((out / "report.json").read_text())["notices"]
    assert any(line.startswith("one photo does not show") for line in notices)


def test_a_class_that_the_model_spells_in_pieces_is_said(model):
    recipe = PersonalizeRecipe(
        model=str(model), class_word="axolotl", token="sks", trainable="lora", threads=1
    )
    prompts, unknown = parts.check(recipe).notes
    assert prompts == "prompts say 'sks axolotl' for what is learned"
    assert "class word 'axolotl' is 7 tokens for this model, which may not know it" in unknown
    assert len(parts.check(replace(recipe, class_word="dog")).notes) == 1
    of_a_word = replace(recipe, trainable="token", token="<my-pet>")
    (said,) = parts.check(of_a_word).notes
    assert said.startswith(unknown) and said.endswith("the new token starts from their average")
    (known,) = parts.check(replace(of_a_word, class_word="photo of dog")).notes
    assert known.startswith("class word 'photo of dog' is 3 tokens") and "may not" not in known


def ends_of(job):
    return {target.path.rpartition("transformer_blocks.0.")[2] for target in job.adapter.targets}


def test_the_embedded_model_gets_a_lora_beside_feed_forward_layers_too():
    recipe = PersonalizeRecipe(trainable="lora", class_word="boot", threads=1)
    assert {"attn2.to_k", "ff.net.0.proj", "ff.net.2"} <= ends_of(parts.check(recipe))
    texts = parts.check(replace(recipe, train_text_encoder=True)).adapter.targets
    assert any(target.path.endswith(".mlp.fc1") for target in texts)
    attentions = parts.check(replace(recipe, targets="to_k,to_out.0,to_q,to_v"))
    begun_before = parts.check(replace(recipe, rules=4, steps=200))
    assert begun_before.adapter == attentions.adapter and begun_before.recipe.steps == 200


def test_the_embedded_model_gets_a_name_that_it_knows():
    job = parts.check(PersonalizeRecipe(trainable="lora", class_word="boot", threads=1))
    assert job.notes == ("prompts say 'item boot' for what is learned",)
    assert (job.recipe.steps, job.recipe.learning_rate) == (400, 5e-4)
    assert parts.check(PersonalizeRecipe(trainable="lora", threads=1)).notes == (
        "prompts say 'item' for what is learned",
    )


@pytest.mark.parametrize("trainable", ["token", "lora"])
def test_a_class_that_the_embedded_model_never_learned_is_said(trainable):
    recipe = PersonalizeRecipe(trainable=trainable, class_word="sneaker", threads=1)
    notes = parts.check(recipe).notes
    assert sum("class word 'sneaker' was in no caption" in line for line in notes) == 1
    for known in ("item", "boot", "red dress"):
        notes = parts.check(replace(recipe, class_word=known)).notes
        assert not any("was in no caption" in line for line in notes)


def test_a_run_whose_class_had_the_words_of_what_is_learned_goes_on():
    recipe = PersonalizeRecipe(trainable="lora", class_count=2, rules=5, threads=1)
    assert trigger_of(parts.check(recipe).recipe) == "item"
    with pytest.raises(InputError, match="prompts would say 'item' both"):
        parts.check(replace(recipe, rules=6))


def lora_file(folder, recipe):
    """Write the LoRA that a recipe starts with, as a run does; return the file."""
    job = parts.check(recipe)
    write_lora(folder, "my-dog", job.adapter, job.start, {}, job.model)
    return folder / DIFFUSERS_FILE


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"targets": "to_k,to_v"},
        {"targets": "attn1.to_out.0,mid_block.attentions.0.transformer_blocks.0.attn2.to_q"},
        {"targets": "q_proj,to_k", "train_text_encoder": True},
        {"targets": "fc1", "train_text_encoder": True},
        {"targets": "all-linear"},
        {"targets": "all-linear", "train_text_encoder": True},
        {"targets": "to_k,to_out.0,to_q,to_v"},
        {"train_text_encoder": True},
    ],
)
@pytest.mark.parametrize("name", ["tiny-sd", "folder"])
def test_a_run_that_starts_from_a_file_records_the_layers_it_trains(model, tmp_path, keys, name):
    model = str(model) if name == "folder" else EMBEDDED
    plain = PersonalizeRecipe(model=model, class_word="dog", trainable="lora", threads=1)
    file = lora_file(tmp_path, replace(plain, rank=2, **keys))
    begun = parts.check(replace(plain, start=str(file)))
    alone = parts.check(replace(begun.recipe, start=None))  # as generate has it
    again = parts.check(begun.recipe)  # as resume has it
    assert alone.adapter == again.adapter == begun.adapter
    assert begun.adapter.targets == parts.check(replace(plain, rank=2, **keys)).adapter.targets


@pytest.mark.parametrize("token", ["<my-bag>", "my-bag", "<red>", "<bag>"])
@pytest.mark.parametrize("class_word", ["bag", "red bag"])
@pytest.mark.parametrize("learn", ["object", "style"])
def test_the_trigger_in_a_prompt_is_spelled_as_it_was_trained(model, token, class_word, learn):
    recipe = PersonalizeRecipe(
        model=str(model),
        class_word=class_word,
        token=token,
        trainable="lora",
        threads=1,
        learn=learn,
    )
    job, trigger = parts.check(recipe), trigger_of(recipe)
    typed = parts.prompt_of(job.recipe, f"a photo of {trigger} on grass")
    assert job.text(typed) == f"a photo of {trigger} on grass"
    assert job.text(parts.prompt_of(job.recipe, f"a {token}")) == f"a {trigger}"


def test_folders_of_kohya_name_what_a_lora_learns_and_captions_keep_it(photos, model, tmp_path):
    folder = tmp_path / "set" / "10_sks boot"
    folder.mkdir(parents=True)
    shutil.copy(photos / "0.png", folder)
    (folder / "0.txt").write_text("sks boot, on grass")
    keys = {"photos": str(folder.parent), "trainable": "lora", "threads": 1}
    for recipe in (PersonalizeRecipe(model=str(model), **keys), PersonalizeRecipe(**keys)):
        job = parts.check(recipe)
        assert job.notes[:3] == (
            "class word 'boot', from the names of the folders; --class says another",
            "token 'sks', from the names of the folders; --token says another",
            "prompts say 'sks boot' for what is learned",
        )
        _, texts = load_job_photos(job)
        assert [job.text(text) for own in texts for text in own] == ["sks boot, on grass"]
    named = parts.check(PersonalizeRecipe(model=str(model), token="<mine>", **keys))
    assert named.recipe.token == "<mine>"
    of_a_word = PersonalizeRecipe(model=str(model), **{**keys, "trainable": "token"})
    assert parts.check(of_a_word).recipe.token == "<my-boot>"


def test_gradients_of_a_clipped_step_are_kept_and_planned(model):
    recipe = PersonalizeRecipe(model=str(model), class_word="dog", trainable="lora", threads=1)
    plain, clipped = PersonalizeJob(recipe), PersonalizeJob(replace(recipe, clip=1.0))
    scale = dict.fromkeys(parts.check(recipe).start, 1.0)
    assert not isinstance(plain.method(0.1, scale)[0], Remembering)
    assert isinstance(clipped.method(0.1, scale)[0], Remembering)
    trained = 4 * plain.footprint().trained
    held = [job.footprint().known["train"][-1].bytes for job in (plain, clipped)]
    assert held[0] >= 9 * trained  # two moments and seven copies
    assert held[1] - held[0] == trained


def test_export_says_that_the_files_are_there_already(finished, tmp_path, capsys):
    assert cli.main(["export", str(finished), str(tmp_path / "out")]) == 2
    assert "is a run that trained a LoRA" in capsys.readouterr().err


@pytest.mark.slow
def test_the_text_encoder_is_trained_where_it_is_asked_for(photos, model, tmp_path):
    out = tmp_path / "run"
    options = ("--train-text-encoder", "--targets", "to_k,q_proj", "--no-previews")
    assert cli.main(words(photos, model, out, *options)) == 0
    kinds = {name.partition(".")[0] for name in lora_of(out)}
    assert kinds == {"unet", "text_encoder"}
    moved = [value for name, value in lora_of(out).items() if "text" in name and "up" in name]
    assert all(np.abs(value).max() > 0 for value in moved)


@pytest.mark.parametrize(
    "options",
    [
        ("--quant", "int8", "--lean"),
        pytest.param(("--dtype", "bfloat16"), marks=pytest.mark.slow),
        pytest.param(("--quant", "int8", "--dtype", "bfloat16", "--lean"), marks=pytest.mark.slow),
        pytest.param(("--quant", "int4", "--lean"), marks=pytest.mark.slow),
    ],
)
def test_a_base_in_few_bits_or_in_its_file_is_trained_beside(photos, model, tmp_path, options):
    out = tmp_path / "run"
    assert cli.main(words(photos, model, out, *options, "--no-previews")) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["eval"]["best"] < report["eval"]["first"]
    assert all(value.dtype == np.float32 for value in lora_of(out).values())


def test_a_run_whose_own_keys_are_of_forward_passes_is_refused(photos, model, tmp_path, capsys):
    assert cli.main(words(photos, model, tmp_path / "run", "--epsilon", "0.1")) == 2
    assert "epsilon is not read by method 'backprop'" in capsys.readouterr().err


def test_pictures_of_the_class_come_from_a_folder_and_the_rest_is_drawn_once(
    photos, model, tmp_path
):
    out, given = tmp_path / "run", tmp_path / "dogs"
    given.mkdir()
    shutil.copy(photos / "0.png", given / "dog.png")
    options = ("--class_data_dir", str(given), "--num_class_images", "3", "--no-previews")
    assert cli.main(words(photos, model, out, *options)) == 0
    drawn = sorted((out / "samples").glob("class-*.png"))
    assert [path.name for path in drawn] == ["class-001.png", "class-002.png"]
    kept = load_file(out / "start.safetensors")
    assert len(kept["prior/mean"]) == 3
    report = json.loads((out / "report.json").read_text())
    assert report["backwards"] == 6 * 4  # two photos and two pictures of the class a step
    lora = lora_of(out)
    (out / "start.safetensors").write_bytes(b"")  # made again of what the run keeps
    shutil.rmtree(out / "lora")
    lines = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (out / "journal.jsonl").write_bytes(b"".join(x for x in lines if b'"kind":"end"' not in x))
    assert cli.main(["run", "--resume", str(out)]) == 0
    assert_equal(lora_of(out), lora)


def test_minutes_said_before_the_start_count_the_pictures_that_are_drawn(model):
    keys = {"model": str(model), "class_word": "dog", "trainable": "lora", "preview_steps": 5}
    plain, drawing = (
        PersonalizeJob(PersonalizeRecipe(**keys, **more)).footprint()
        for more in ({}, {"class_count": 7})
    )
    assert (plain.before, plain.beside) == (0, 1)
    assert (drawing.before, drawing.beside) == (2 * 5 * 7, 2)  # with and without the prompt


@pytest.mark.parametrize("name", ["empty", "none"])
def test_all_pictures_of_the_class_are_drawn_where_its_folder_has_none(
    photos, model, tmp_path, capsys, name
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"")
    out, given = tmp_path / "run", tmp_path / name
    options = ("--class-photos", str(given), "--class-count", "2", "--no-previews")
    assert cli.main(words(photos, model, out, *options)) == 0
    assert f"no pictures in {given}; drawing 2 pictures" in capsys.readouterr().err
    assert len(list((out / "samples").glob("class-*.png"))) == 2
    assert not given.exists() or [path.name for path in given.iterdir()] == [".DS_Store"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--quant", "int8", "--lean")])
def test_a_plan_names_the_adapters_and_a_run_holds_no_more(tmp_path, options):
    out = tmp_path / "run"
    few = ("--steps", "4", "--threads", "1", "--trainable", "lora", "--rank", "16")
    command = [sys.executable, "-m", "edge_train", "run", "--mem", "4GB", "--out", str(out)]
    done = subprocess.run([*command, *few, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    # pages of libraries that are touched differ a little from machine to machine
    assert report["measured_peak_bytes"] <= 1.06 * report["plan_peak_bytes"]
    phases = json.loads((out / "plan.json").read_text())["phases"]
    lines = {line["name"]: line["bytes"] for line in phases[1]["lines"]}
    trained = sum(value.nbytes for value in lora_of(out).values())
    assert lines["optimizer state and copies"] >= 9 * trained  # two moments and seven copies


@pytest.mark.slow
def test_a_lora_of_sdxl_with_its_text_encoders_is_trained_end_to_end(photos, tmp_path):
    xl = make_tiny_model(tmp_path / "sdxl", "sdxl")
    out = tmp_path / "run"
    assert cli.main(words(photos, xl, out, "--train-text-encoder")) == 0
    kinds = {name.partition(".")[0] for name in lora_of(out)}
    assert kinds == {"unet", "text_encoder", "text_encoder_2"}
    kohya = load_file(out / "lora" / "my-dog.safetensors")
    starts = {name.split("_", 2)[1] for name in kohya}
    assert starts == {"unet", "te1", "te2"}
