"""Seconds of a step that nobody measured are counted from shapes, and say that they are about."""

import json
import subprocess
import sys

import pytest
from recipes import recipe_for

from edge_train.memory.footprint import Footprint
from edge_train.memory.plan import Phase, Plan
from edge_train.run import pace
from edge_train.run.pace import REFERENCE, Machine, Prediction, passes, predict, work_of
from edge_train.run.survey import Choice
from edge_train.tasks import task_of
from edge_train.tasks.personalize.footprint import denoiser_numbers, denoiser_operations


def a_unet():
    """Two levels; every kind of layer once."""
    return {
        "unet.conv_in.weight": (8, 4, 3, 3),
        "unet.conv_in.bias": (8,),
        "unet.time_embedding.linear_1.weight": (32, 8),
        "unet.down_blocks.0.resnets.0.time_emb_proj.weight": (8, 32),
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (8, 8),
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (8, 16),
        "unet.down_blocks.0.downsamplers.0.conv.weight": (8, 8, 3, 3),
        "unet.down_blocks.1.resnets.0.conv1.weight": (16, 8, 3, 3),
        "unet.mid_block.resnets.0.conv1.weight": (16, 16, 3, 3),
        "unet.up_blocks.0.upsamplers.0.conv.weight": (16, 16, 3, 3),
        "unet.up_blocks.1.resnets.0.conv1.weight": (8, 24, 3, 3),
        "text_encoder.embeddings.token_embedding.weight": (1000, 16),
        "text_encoder.encoder.layers.0.mlp.fc1.weight": (64, 16),
    }


def test_every_layer_is_counted_at_the_size_the_picture_has_there():
    cells, tokens = 64, 5
    once = 32 * 8 + 8 * 32
    full = 8 * 4 * 9 + 8 * 8 + 2 * cells * 8 + 16 * 16 * 9 + 8 * 24 * 9
    half = 8 * 8 * 9 + 16 * 8 * 9 + 16 * 16 * 9
    words = 8 * 16 + 64 * 16
    wanted = 2 * (once + cells * full + cells // 4 * half + tokens * words)
    assert denoiser_operations(a_unet(), cells, tokens) == wanted


def test_numbers_go_in_and_out_of_every_layer_at_the_size_the_picture_has_there():
    cells, tokens = 64, 5
    once = (32 + 8) + (8 + 32)
    full = (8 + 4) + (8 + 8) + (16 + 16) + (8 + 24)
    half = (8 + 8) + (16 + 8) + (16 + 16)
    words = (8 + 16) + (64 + 16)
    wanted = once + cells * full + cells // 4 * half + tokens * words
    assert denoiser_numbers(a_unet(), cells, tokens) == wanted


def test_what_is_done_between_products_takes_its_time_at_the_pace_of_the_machine():
    recipe = recipe_for(method="zo", samples=1, threads=1, runtime="torch", steps=10)
    of_each = task_of(recipe).use("torch").pace.moved_seconds
    without, moved = (seconds(recipe, held(moved=n), rate=REFERENCE.rate) for n in (0, 1e9))
    assert moved.step - without.step == pytest.approx(passes(recipe) * 1e9 * of_each)
    slow = [seconds(recipe, held(moved=n), rate=REFERENCE.rate / 2) for n in (0, 1e9)]
    assert slow[1].step - slow[0].step == pytest.approx(2 * passes(recipe) * 1e9 * of_each)


def test_a_step_is_worth_its_forward_passes():
    assert passes(recipe_for(method="zo", samples=2, queries=4, sides=1)) == 10
    assert passes(recipe_for(method="zo", samples=1, queries=4, sides=2)) == 8
    assert passes(recipe_for(method="backprop", samples=2)) == 6
    assert passes(recipe_for(task="language-model", method="galore", samples=2)) == 8


def held(**others):
    return Footprint((), 0, {}, **{"operations": 1e9, "products": 10, "together": 4, **others})


def a_step(**others):
    keys = {"method": "backprop", "samples": 1, "threads": 1, "runtime": "torch", "steps": 10}
    return recipe_for(**{**keys, "dtype": "float32", "evaluate_every": 5, **others})


def seconds(recipe, footprint, *, rate=1e9, slowness=1.0):
    return predict(recipe, footprint, Machine(rate, slowness))


def test_a_pass_takes_its_operations_and_its_calls():
    pace = task_of(a_step()).use("torch").pace
    call, operations = 10 * pace.product_seconds, 1.0 / pace.share
    found = seconds(a_step(evaluation_samples=6), held())
    assert found.step == pytest.approx(3 * (call + operations))  # there and back
    assert found.evaluation == pytest.approx(2 * call + 6 * operations)  # four, then two
    slow = seconds(a_step(evaluation_samples=6), held(), slowness=3.0)
    assert slow.evaluation == pytest.approx(6 * call + 6 * operations)
    fast = seconds(a_step(evaluation_samples=6), held(), rate=2e9)
    assert fast.evaluation == pytest.approx(2 * call + 3 * operations)
    lean = seconds(a_step(evaluation_samples=6, lean=True), held())
    assert lean.evaluation == pytest.approx(2 * call + 12 * operations)


def test_every_number_that_a_step_changes_takes_its_time():
    pace = task_of(a_step()).use("torch").pace
    few, many = (seconds(a_step(), held(trained=count)) for count in (0, 10**6))
    assert many.step - few.step == pytest.approx(1e6 * pace.number_seconds)
    zo = {"method": "zo", "samples": 1, "queries": 3, "sides": 1}
    few, many = (seconds(a_step(**zo), held(trained=count)) for count in (0, 10**6))
    assert many.step - few.step == pytest.approx(4e6 * pace.number_seconds)  # at every point


def test_a_run_takes_its_start_steps_evaluations_and_pictures():
    found = seconds(a_step(evaluation_samples=4), held(after=40))
    assert (found.evaluations, found.steps) == (3, 10)
    rest = 2 * found.evaluation + 10 * found.step + 10 * found.evaluation
    assert found.rest == pytest.approx(rest)
    assert found.seconds == pytest.approx(found.start + found.evaluation + rest)
    assert seconds(a_step(), held(operations=0.0)) is None


def test_pictures_that_are_drawn_to_learn_from_and_trained_beside_photos_take_their_time():
    plain, drawn = (seconds(a_step(evaluation_samples=4), held(before=n)) for n in (0, 40))
    assert drawn.start - plain.start == pytest.approx(10 * plain.evaluation)  # calls of four
    assert drawn.seconds - plain.seconds == pytest.approx(10 * plain.evaluation)
    both = seconds(a_step(), held(beside=2))
    assert both.step == pytest.approx(seconds(a_step(samples=2), held()).step)


def test_what_nobody_counted_goes_by_its_samples():
    # 4 of an evaluation, 30 of ten steps there and back, 40 at the end
    asked, unknown = a_step(evaluation_samples=4), held(operations=0.0, products=0, after=40)
    counted = Prediction(**json.loads(json.dumps(work_of(asked, unknown))))  # as plan.json has it
    assert counted.rest / counted.evaluation == pytest.approx(2 + 30 / 4 + 10)


@pytest.mark.process
def test_the_probe_times_a_product_here():
    done = subprocess.run(
        [sys.executable, "-c", pace._PROBE], capture_output=True, text=True, check=True
    )
    product, loop = map(float, done.stdout.split())
    assert 0 < product < 60 and 0 < loop < 60


def test_measured_seconds_win_and_others_say_about():
    phases = (Phase("train", ()),)
    counted = Prediction(1.0, 1.0, 1, 573.4, 10, 0.0)
    assert Choice({}, recipe_for(), Plan(phases, "rehearsal", 0.25), counted).pace == "0.25"
    assert Choice({}, recipe_for(), Plan(phases, "estimate"), counted).pace == "about 570"
    assert Choice({}, recipe_for(), Plan(phases, "estimate")).pace == "not known"


def test_an_evaluation_is_of_no_more_samples_than_are_held_out():
    """40 chats hold one sequence out, and a plan took sixteen: five times as long as it was."""
    machine = Machine(1e10, 1.0)
    asked = a_step(task="language-model", evaluation_samples=16)
    all_there, one, uncounted = (
        predict(asked, held(evaluated=count), machine).evaluation for count in (100, 1, 0)
    )
    assert all_there == uncounted == pytest.approx(16 * one, rel=0.2)


def test_tokens_of_texts_are_calls_of_their_own_before_and_after():
    machine, recipe = Machine(1e10, 2.0), a_step(task="language-model")
    without, with_texts = (predict(recipe, held(written=count), machine) for count in (0, 24))
    call = 10 * task_of(recipe).use("torch").pace.product_seconds * 2.0
    assert with_texts.start - without.start == pytest.approx(24 * call)
    assert with_texts.after - without.after == pytest.approx(24 * call)


def test_a_backward_pass_without_gradients_of_all_weights_is_worth_less():
    recipe = a_step(task="language-model", samples=2)
    assert passes(recipe) == 8 and passes(recipe, backward=2) == 6
    machine = Machine(1e9, 1.0)
    whole, adapter = (predict(recipe, held(backward=b), machine).step for b in (0, 2))
    assert adapter < 0.85 * whole
