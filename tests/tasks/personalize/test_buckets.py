"""Photos of other shapes at sizes of equal area: what a batch holds, what is told, what is kept."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tiny_models import make_tiny_model

from edge_train import cli
from edge_train.formats.diffusion_adapter import DIFFUSERS_FILE
from edge_train.rng import Key
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.buckets import bucket_sizes, nearest
from edge_train.tasks.personalize.job import PersonalizeJob
from edge_train.tasks.personalize.objective import PhotoCache
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

pytest.importorskip("torch")
pytestmark = pytest.mark.process
SHAPES = {"wide.png": (96, 48), "high.png": (40, 60), "square.png": (50, 50), "also.png": (32, 32)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, (name, (width, height)) in enumerate(SHAPES.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "sd1", "sd1")


def words(photos, model, out, *options):
    first = ["run", str(photos), "--model", str(model), "--out", str(out), "--class", "dog"]
    few = ["--trainable", "lora", "--rank", "2", "--buckets", "--steps", "6", "--samples", "2"]
    few += ["--evaluation-samples", "8", "--evaluate-every", "2", "--threads", "1"]
    return [*first, *few, "--preview-steps", "1", "--learning-rate", "1e-2", *options]


def task_of(photos, model, folder, **keys):
    """Return the task of a job whose photos are encoded."""
    recipe = PersonalizeRecipe(model=str(model), photos=str(photos), class_word="dog", **keys)
    job = PersonalizeJob(recipe)
    job.load()
    job.prepare(folder, lambda line: None)
    return job.task()


@pytest.fixture(scope="module")
def task(photos, model, tmp_path_factory):
    keys = {"buckets": True, "flips": False, "samples": 2, "evaluation_samples": 4}
    return task_of(photos, model, tmp_path_factory.mktemp("run"), **keys)


@pytest.mark.parametrize(("side", "unit"), [(512, 64), (768, 64), (1024, 32), (32, 4), (320, 64)])
def test_no_size_has_more_pixels_than_the_square_and_all_are_whole_cells(side, unit):
    sizes = bucket_sizes(side, unit)
    assert sizes[0] == (side, side) and len(set(sizes)) == len(sizes) > 3
    for width, height in sizes[1:]:
        assert width * height <= side * side
        assert width % unit == height % unit == 0
        assert side <= 2 * min(width, height) and max(width, height) <= 2 * side
    if side >= 256:
        assert all(width % 64 == height % 64 == 0 for width, height in sizes)


def test_a_photo_gets_the_size_that_cuts_least_of_it():
    sizes = bucket_sizes(512, 64)
    for size in [(4000, 3000), (1080, 1920), (500, 500), (3000, 100)]:
        share = size[0] / size[1]
        kept = {s: min(share / (s[0] / s[1]), s[0] / s[1] / share) for s in sizes}
        assert kept[nearest(size, sizes)] == max(kept.values())


def test_a_batch_has_one_shape_and_every_photo_is_drawn_as_often(task):
    shapes = [cache.mean.shape[2:] for cache in (task.cache, *task.cache.others)]
    assert len(set(shapes)) == 3
    drawn = dict.fromkeys(shapes, 0)
    for step in range(400):
        batch = task.batch(Key(0, step))
        assert batch["latents"].shape == batch["target"].shape  # one array has one shape
        drawn[batch["latents"].shape[2:]] += 1
    counts = {c.mean.shape[2:]: c.photos for c in (task.cache, *task.cache.others)}
    # 400 draws of a share of 1/4 or 1/2: five standard deviations are 50
    assert all(abs(drawn[shape] - 400 * counts[shape] / 4) < 50 for shape in shapes)


def test_the_evaluation_sees_every_photo_whatever_its_shape(task):
    batch = task.evaluation()
    arrays = [value for name, value in batch.items() if name.endswith("latents")]
    assert sorted(len(value) for value in arrays) == [1, 1, 2]
    assert len({value.shape[2:] for value in arrays}) == 3

    class Counting:
        def forward(self, part, points):
            assert "latents" in part and all(len(v) == len(part["latents"]) for v in part.values())
            return np.full((len(points), len(part["latents"])), len(part["latents"]), np.float32)

    assert task.loss(Counting(), batch, [{}, {}]).shape == (2, 4)


def test_repeats_count_across_shapes(photos, model, tmp_path):
    for repeats, name in ((3, "wide.png"), (1, "square.png")):
        (tmp_path / f"{repeats}_my dog").mkdir()
        shutil.copy(photos / name, tmp_path / f"{repeats}_my dog")
    task = task_of(tmp_path, model, tmp_path, buckets=True, flips=False)
    caches = (task.cache, *task.cache.others)
    assert sorted(cache.draw_count for cache in caches) == [1, 3]


def test_what_is_kept_of_all_shapes_gives_the_same_batches(task):
    again = replace(task, cache=PhotoCache.from_tensors(task.cache.tensors()))
    for step in range(8):
        batch, same = task.batch(Key(0, step)), again.batch(Key(0, step))
        assert batch.keys() == same.keys()
        assert all(np.array_equal(batch[name], same[name]) for name in batch)


@pytest.mark.slow
def test_sdxl_is_told_the_size_of_each_photo_and_where_it_was_cut(photos, tmp_path):
    xl = make_tiny_model(tmp_path / "sdxl", "sdxl")
    task = task_of(photos, xl, tmp_path, buckets=True, flips=True)
    told = {
        tuple(row): cache.mean.shape[2:]
        for cache in (task.cache, *task.cache.others)
        for row in cache.sizes.tolist()
    }
    originals = {(row[1], row[0]) for row in told}
    assert originals == set(SHAPES.values())
    cell = PersonalizeJob(PersonalizeRecipe(model=str(xl), class_word="dog"))._token_job.model
    for row, shape in told.items():
        assert (row[4], row[5]) == tuple(cell.latent_scale * side for side in shape)
    batch = task.batch(Key(0, 0))
    assert tuple(batch["time_ids"][0].tolist()) in told


def test_a_run_with_buckets_says_them_draws_squares_and_resumes_to_the_same_bits(
    photos, model, tmp_path, capsys
):
    out = tmp_path / "run"
    assert cli.main(words(photos, model, out)) == 0
    said = capsys.readouterr()
    assert "photos are trained at" in said.out + said.err
    lines = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    first = json.loads(lines[0])
    assert json.dumps(first).count("(2 photos)") >= 1
    assert "(2 photos)" in (out / "report.html").read_text()
    with Image.open(next((out / "samples").glob("after-*.png"))) as after:
        assert after.size[0] == after.size[1]
    lora = load_file(out / "lora" / DIFFUSERS_FILE)
    shutil.rmtree(out / "lora")
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").mkdir()
    kept = [x for x in lines if b'"step":5' not in x and b'"kind":"end"' not in x]
    (out / "journal.jsonl").write_bytes(b"".join(kept))
    assert cli.main(["run", "--resume", str(out)]) == 0
    for name, value in load_file(out / "lora" / DIFFUSERS_FILE).items():
        np.testing.assert_array_equal(value, lora[name])


@pytest.mark.slow
def test_masks_are_cut_as_their_photos_are(photos, model, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    mask = np.zeros((48, 96), np.uint8)
    mask[:, :48] = 255
    Image.fromarray(mask).save(folder / "wide.mask.png")
    task = task_of(folder, model, tmp_path, buckets=True, flips=False)
    [weights] = [c.masks for c in (task.cache, *task.cache.others) if c.masks is not None]
    assert weights.shape[3] > weights.shape[2]  # of a wide photo
    half = weights.shape[3] // 2
    assert weights[0, 0, :, : half - 1].min() == 1 and weights[0, 0, :, half + 1 :].max() == 0


def test_what_cannot_have_shapes_of_its_own_is_one_sentence(photos, model, tmp_path, capsys):
    assert cli.main(words(photos, model, tmp_path / "run", "--class-count", "2")) == 2
    assert "square pictures of the class" in capsys.readouterr().err


def test_the_plan_is_of_the_largest_size(photos, model):
    with_buckets, squares = (
        PersonalizeJob(
            PersonalizeRecipe(
                model=str(model), photos=str(photos), class_word="dog", buckets=buckets
            )
        )
        for buckets in (True, False)
    )
    sizes = parts.sizes_of(with_buckets._token_job)
    assert max(width * height for width, height in sizes) == sizes[0][0] ** 2
    assert with_buckets.footprint() == squares.footprint()
