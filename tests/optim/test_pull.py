"""What chance moved goes back to the start; what is asked for stays, less a little."""

import numpy as np

from edge_train.optim.pull import Pull

START = np.array([[1.0, -2.0, 0.5]], np.float32)


def test_where_no_answer_asks_for_anything_a_block_returns_to_its_start():
    rule, point = Pull(0.02), START + np.float32(3.0)
    state = rule.init(START)
    for _ in range(100):
        point = point - rule.update(np.zeros_like(point), state, point)
    np.testing.assert_allclose(point, START + 3.0 * 0.98**100, rtol=1e-4)


def test_steps_towards_a_goal_end_where_both_are_even():
    rule, point, goal = Pull(0.02), START.copy(), START + np.float32(1.0)
    state = rule.init(START)
    for _ in range(400):
        point = point - rule.update(0.1 * (point - goal), state, point)
    np.testing.assert_allclose(point, START + 0.1 / 0.12, rtol=1e-4)


def test_at_the_start_an_update_keeps_every_bit():
    rule, update = Pull(0.02), np.array([[1e-9, 0.1, -3.0]], np.float32)
    np.testing.assert_array_equal(rule.update(update.copy(), rule.init(START), START), update)
