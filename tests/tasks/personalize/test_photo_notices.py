"""What a run cuts off captions, and why photos are not mirrored, is said before it starts."""

import numpy as np
import pytest
from PIL import Image
from places import GOLDEN

pytest.importorskip("onnxruntime")

from edge_train import cli
from edge_train.errors import InputError
from edge_train.run.survey import survey
from edge_train.tasks.personalize import encoding
from edge_train.tasks.personalize.job import PersonalizeJob
from edge_train.tasks.personalize.recipe import PersonalizeRecipe


def job(folder, caption=None, **keys):
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    if caption:
        (folder / "1.txt").write_text(caption)
    keys = {"class_word": "dog", **keys}
    made = PersonalizeJob(PersonalizeRecipe(model=str(GOLDEN), photos=str(folder), **keys))
    made.load()
    return made


def said(made):
    return made.notes[len(made._token_job.notes) :]


def test_captions_that_lose_their_end_are_said(tmp_path):
    tokenizer = job(tmp_path / "a")._token_job.tokenizers["ids"]
    room = tokenizer.room
    assert room == tokenizer.max_length - 2
    fits, cut = ("{}" + " a" * (room - n) for n in (1, 0))
    assert (tokenizer.count(fits, 1), tokenizer.count(cut, 1)) == (room, room + 1)
    assert not said(job(tmp_path / "b", fits))
    assert said(job(tmp_path / "c", cut)) == (
        f"1 of 1 captions are longer than the {room} tokens that the model reads and lose their "
        f"end: 1.png has {room + 1}",
    )


@pytest.mark.parametrize("word", ["left", "Right", "text", "words", "left-hand", "letters"])
def test_photos_whose_captions_name_a_side_are_not_mirrored(tmp_path, word):
    made = job(tmp_path / "a", f"{{}} {word}")
    assert made.recipe.flips is False
    assert said(made)[-1] == (
        f"photos are not mirrored: 1 of 1 captions name a side or words (1.png says {word!r})"
    )
    encoded = encoding.encode_photos(made._token_job, made._photos, made._texts)
    assert len(encoded.mean) == 2


def test_photos_are_mirrored_where_nothing_is_against_it(tmp_path):
    made = job(tmp_path / "a", "bright {}")
    assert made.recipe.flips and not said(made)
    assert len(encoding.encode_photos(made._token_job, made._photos, made._texts).mean) == 4
    off = job(tmp_path / "b", "{} left", flips=False)
    assert not said(off)  # nothing was taken away


def test_the_class_comes_from_folders_of_repeats_unless_it_is_said(tmp_path):
    job(tmp_path / "10_sks cat")
    for word, expected in ((None, "cat"), ("dog", "dog")):
        recipe = PersonalizeRecipe(model=str(GOLDEN), photos=str(tmp_path), class_word=word)
        made = PersonalizeJob(recipe)
        assert made.recipe.class_word == expected
        assert ("class word 'cat', from the names of the folders" in str(made.notes)) == (not word)


def test_folders_of_several_classes_are_said(tmp_path):
    job(tmp_path / "10_sks cat")
    job(tmp_path / "2_dog")
    (tmp_path / "3_empty").mkdir()
    recipe = PersonalizeRecipe(model=str(GOLDEN), photos=str(tmp_path), class_word="dog")
    made = PersonalizeJob(recipe)
    made.load()
    assert any(line.startswith("folders are named after cat, dog: one word") for line in made.notes)


def plan_of(folder, **keys):
    return survey(
        PersonalizeRecipe(model=str(GOLDEN), photos=str(folder), class_word="dog", **keys)
    )


def test_a_plan_refuses_masks_on_an_artifact_as_its_run_does(tmp_path):
    job(tmp_path / "a")
    assert plan_of(tmp_path / "a").fits
    white = Image.fromarray(np.full((32, 32), 255, np.uint8))
    white.save(tmp_path / "a" / "1-masklabel.png")
    with pytest.raises(InputError, match=r"1\.png has a mask, and the loss of an exported model"):
        plan_of(tmp_path / "a")


def test_a_plan_refuses_folders_and_files_that_its_run_refuses(tmp_path):
    with pytest.raises(InputError, match="No such file or directory; name a folder with 1 to 50"):
        plan_of(tmp_path / "none")
    job(tmp_path / "a")
    (tmp_path / "a" / "2.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"2\.jpg: cannot be read \(a web page"):
        plan_of(tmp_path / "a")


def test_a_plan_refuses_photos_that_its_run_refuses_further_on(tmp_path):
    job(tmp_path / "a")
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"1\.png: cannot be read \(damaged, cut short"):
        plan_of(tmp_path / "a")
    for number in range(2):
        Image.new("RGB", (32, 32)).save(tmp_path / "a" / f"{number}.png")
    with pytest.raises(InputError, match="every photo is black, white or of one color all over"):
        plan_of(tmp_path / "a")


def test_a_plan_says_what_its_run_says_of_photos_and_words(tmp_path, capsys):
    job(tmp_path / "a", "left of a {}")
    Image.new("RGB", (32, 32)).save(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "0.txt").write_text("{}" + " a" * 99)
    recipe = PersonalizeRecipe(model=str(GOLDEN), photos=str(tmp_path / "a"), class_word="dog")
    made = PersonalizeJob(recipe)
    made.load()
    starts = ("1 of 2 photos are black", "1 of 2 captions are longer", "photos are not mirrored")
    assert all(line.startswith(start) for line, start in zip(said(made), starts, strict=True))
    assert survey(recipe).notes == made.notes
    (tmp_path / "a" / "0.png").unlink()
    keys = ["--model", str(GOLDEN), "--class", "golden axolotl"]
    for words, place in (([], "out"), (["--json"], "err")):
        assert cli.main(["plan", str(tmp_path / "a"), *keys, *words]) == 0
        text = getattr(capsys.readouterr(), place)
        assert "one photo does not show what belongs to the thing" in text
        assert "class word 'golden axolotl' is " in text
