"""Previews are made in the run's own process without keeping memory, and files are whole."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from recipes import recipe_for
from tiny_models import make_tiny_model

from edge_train.arrays.parameters import Parameters
from edge_train.memory import measure as memory
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.pictures import contact_sheet, draw, png, save_pictures

PROMPTS = ("a photo of {}", "{}")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    model = make_tiny_model(tmp_path_factory.mktemp("model") / "sd1", "sd1")
    job = parts.check(recipe_for(model=str(model), class_word="dog", preview_steps=2, threads=1))
    ids = {"ids": np.concatenate([job.ids(text)["ids"] for text in (*PROMPTS, "")])}
    runtime = parts.open_runtime(job, Parameters(job.start), ids)
    yield job, runtime
    runtime.close()


def test_a_picture_depends_on_its_noise_and_not_on_its_neighbors(opened):
    job, runtime = opened
    both = draw(job, runtime, job.start, PROMPTS)
    alone = draw(job, runtime, job.start, PROMPTS[:1])
    assert both.shape == (2, 32, 32, 3) and both.dtype == np.uint8
    # a batch of another size rounds differently in the last bit of a float, rarely in a pixel
    assert np.abs(both[0].astype(int) - alone[0]).max() <= 1
    assert not np.array_equal(both[0], draw(job, runtime, job.start, PROMPTS, seed=1)[0])


def test_batches_of_any_size_give_the_same_pictures(opened):
    job, runtime = opened
    together = draw(job, runtime, job.start, PROMPTS, together=2)
    one_by_one = draw(job, runtime, job.start, PROMPTS, together=1)
    assert np.abs(together.astype(int) - one_by_one).max() <= 1


def test_many_previews_do_not_grow_the_process(opened):
    job, runtime = opened
    job = replace(job, recipe=replace(job.recipe, preview_steps=1))
    for _ in range(2):
        draw(job, runtime, job.start, PROMPTS)
    before = memory.measure().resident_bytes
    for _ in range(6):
        draw(job, runtime, job.start, PROMPTS)
    grown = memory.measure().resident_bytes - before
    # the decoder alone holds 2 MB; 6 of them kept would be 12 MB
    assert grown < 8_000_000


def test_png_files_read_back_exactly(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), np.uint8)
    names = save_pictures(tmp_path, "after", pictures)
    assert names == [f"{tmp_path.name}/after-0{i}.png" for i in (1, 2, 3)]
    for name, picture in zip(names, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path.parent / name)), picture)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png(pictures[0])))), pictures[0])


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 4, 1), (5, 2, 3), (6, 3, 2)])
def test_a_contact_sheet_holds_every_picture(count, columns, rows):
    pictures = np.full((count, 4, 6, 3), 7, np.uint8)
    sheet = contact_sheet(pictures, columns, gap=2)
    assert sheet.shape == (rows * 6, columns * 8, 3)
    assert (sheet == 7).all(axis=2).sum() == count * 24
