"""Seconds of a step that nobody measured are counted from shapes, and say that they are about."""

import subprocess
import sys
from dataclasses import replace

import pytest

from edge_train.memory.plan import Phase, Plan
from recipes import recipe_for
from edge_train.run import pace
from edge_train.run.pace import about_seconds, passes
from edge_train.run.survey import Choice
from edge_train.tasks.personalize.footprint import denoiser_operations


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


def test_a_step_is_worth_its_forward_passes():
    assert passes(recipe_for(method="zo", samples=2, queries=4, sides=1)) == 10
    assert passes(recipe_for(method="zo", samples=1, queries=4, sides=2)) == 8
    assert passes(recipe_for(method="backprop", samples=2)) == 6
    assert passes(recipe_for(task="language-model", method="galore", samples=2)) == 8


def test_seconds_are_operations_over_the_pace_of_this_machine(monkeypatch):
    monkeypatch.setattr(pace, "_rate", lambda threads: 1e9 * threads)
    step = recipe_for(method="backprop", samples=1, threads=2, runtime="torch", dtype="float32")
    assert about_seconds(step, 2e9) == pytest.approx(3.0)
    assert about_seconds(step, 0.0) is None
    fast = recipe_for(
        method="zo", samples=1, queries=2, sides=1, threads=1, runtime="onnx", quant="int8-fast"
    )
    assert about_seconds(fast, 1e9) == pytest.approx(1.0)
    lean = replace(fast, lean=True)
    assert about_seconds(lean, 1e9) == pytest.approx(2.0)


def test_the_probe_times_a_product_here():
    done = subprocess.run(
        [sys.executable, "-c", pace._PROBE], capture_output=True, text=True, check=True
    )
    assert 0 < float(done.stdout) < 60


def test_measured_seconds_win_and_others_say_about():
    phases = (Phase("train", ()),)
    measured = Choice({}, recipe_for(), Plan(phases, "rehearsal", 0.25), 1.0)
    assert measured.pace == "0.25"
    assert Choice({}, recipe_for(), Plan(phases, "estimate", 0.25), 1.0).pace == "about 0.25"
    assert Choice({}, recipe_for(), Plan(phases, "estimate"), 573.4).pace == "about 570"
    assert Choice({}, recipe_for(), Plan(phases, "estimate")).pace == "not known"
