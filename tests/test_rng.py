"""Draws are values: pure functions of key and name, independent of order, process and globals."""

import subprocess
import sys

import numpy as np
import pytest

from edge_train.rng import Key, direction


def test_a_draw_depends_on_nothing_but_key_and_name():
    a = direction(Key(1, 2), 0, "token", (3, 4))
    direction(Key(1, 3), 0, "token", (3, 4))
    np.testing.assert_array_equal(a, direction(Key(1, 2), 0, "token", (3, 4)))


def test_draws_of_different_names_are_unrelated():
    keys = [(Key(1, 2), 0, "a"), (Key(1, 2), 1, "a"), (Key(1, 3), 0, "a"), (Key(2, 2), 0, "a")]
    keys.append((Key(1, 2), 0, "b"))
    draws = np.stack([direction(k, q, n, (4000,)) for k, q, n in keys])
    correlation = np.corrcoef(draws) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.08  # 5 standard errors of 1 / sqrt(4000)
    assert abs(draws.mean()) < 0.04 and abs(draws.std() - 1) < 0.04


def test_the_global_generator_is_neither_read_nor_changed():
    before = np.random.get_state()[1].copy()
    direction(Key(1, 2), 0, "token", (100,))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.process
def test_another_process_draws_the_same():
    code = (
        "from edge_train.rng import *; import sys;"
        "sys.stdout.write(direction(Key(1, 2), 0, 'token', (3,)).tobytes().hex())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == direction(Key(1, 2), 0, "token", (3,)).tobytes().hex()


def test_a_generator_is_philox_of_its_key_and_asks_the_system_for_nothing(monkeypatch):
    """Journals replay from these numbers; a seed from the system would cost more than they do."""
    key = Key(7, -3)
    public = np.random.Generator(np.random.Philox(key=key.bits("noise", 1, "token")))

    def never(*_):
        raise AssertionError("the system was asked for a seed")

    monkeypatch.setattr("numpy.random.bit_generator.randbits", never)
    with pytest.raises(AssertionError):
        np.random.Philox(key=1)
    own = key.generator("noise", 1, "token")
    for draw in ("standard_normal", "random", "bytes"):
        one, other = (np.asarray(getattr(g, draw)(33)).tobytes() for g in (own, public))
        assert one == other
    assert own.integers(1000, size=9).tolist() == public.integers(1000, size=9).tolist()
    assert own.permutation(9).tolist() == public.permutation(9).tolist()
