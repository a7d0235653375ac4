"""The tokenizer has a line in every phase of a plan; opening it counts where no engine does."""

import pytest

from edge_train.formats.tokenizer_size import NOT_COUNTED, Source, TokenizerSize
from edge_train.memory.footprint import PREPARE, SAVE, TRAIN, Footprint, PlanLine
from edge_train.memory.plan import estimate
from edge_train.tasks.tokenizer_line import with_tokenizer

LLAMA3 = TokenizerSize(128_256, 280_147, Source.GGUF)


def footprint(libraries_bytes):
    known = {PREPARE: (), TRAIN: (PlanLine("weights", 20_000_000),), SAVE: ()}
    words = {"workspace": {TRAIN: 1_000_000, SAVE: 1_000_000}}
    return Footprint((), 0, known, libraries_bytes=libraries_bytes, **words)


def test_every_phase_holds_the_tokenizer():
    bare, held = footprint(70_000_000), with_tokenizer(footprint(70_000_000), LLAMA3)
    plans = [estimate(one, one.libraries_bytes).phases for one in (bare, held)]
    for before, after in list(zip(*plans, strict=True))[1:]:
        assert after.bytes - before.bytes == LLAMA3.held_bytes == held.job_bytes
    assert 30_000_000 < LLAMA3.held_bytes < 40_000_000  # 41 MB with the library's code


@pytest.mark.parametrize(("libraries_bytes", "counts"), [(70_000_000, True), (400_000_000, False)])
def test_opening_counts_where_no_engine_takes_more_later(libraries_bytes, counts):
    held = with_tokenizer(footprint(libraries_bytes), LLAMA3)
    opening = LLAMA3.opening_bytes - LLAMA3.held_bytes
    assert held.workspace[PREPARE] == (opening if counts else 0)
    assert 100_000_000 < LLAMA3.opening_bytes < 110_000_000  # 98 MB were measured


def test_what_nobody_counted_has_no_line():
    assert with_tokenizer(footprint(0), NOT_COUNTED).known == footprint(0).known
