"""As many threads as pay, measured with a clock of our own; never more than are allowed."""

import pytest

from edge_train.runtimes.threads import Threads, choose


class Machine:
    """A runtime whose passes take the seconds that its number of threads costs."""

    def __init__(self, seconds, first=0.0):
        self.seconds, self.first = seconds, first
        self.now, self.count, self.used, self.passes = 0.0, 0, [], 0

    def use_threads(self, count):
        self.count = count
        self.used.append(count)

    def one_pass(self):
        self.now += self.seconds[self.count] + (self.first if not self.passes else 0.0)
        self.passes += 1

    def chosen(self, most):
        return choose(self, self.one_pass, most, lambda: self.now)


@pytest.mark.parametrize(
    ("seconds", "most", "count", "used"),
    [
        ({1: 0.01, 2: 0.2}, 2, 1, [1, 2, 1]),  # the other core is busy
        ({1: 0.01, 2: 0.009}, 2, 1, [1, 2, 1]),  # a little faster is not worth a core
        ({1: 0.01, 2: 0.006}, 2, 2, [1, 2]),
        ({1: 0.04, 2: 0.02, 4: 0.019, 8: 0.001}, 8, 2, [1, 2, 4, 2]),  # stops where it ends
        ({1: 0.06, 2: 0.03, 4: 0.015, 6: 0.010}, 6, 6, [1, 2, 4, 6]),  # not only powers of two
        ({1: 4.0, 2: 2.1}, 2, 2, [1, 2]),  # passes of a large model
        ({1: 1.0}, 1, 1, [1]),
    ],
)
def test_threads_are_taken_while_more_help_clearly(seconds, most, count, used):
    machine = Machine(seconds)
    found = machine.chosen(most)
    assert found.count == machine.count == count
    assert machine.used == used
    assert found.most == most
    assert all(found.seconds[n] == pytest.approx(seconds[n]) for n in found.seconds)


def test_the_first_pass_of_all_reads_the_weights_and_does_not_count():
    assert Machine({1: 0.5, 2: 0.6}, first=10.0).chosen(2).count == 1


def test_one_core_is_not_measured():
    machine = Machine({1: 1.0})
    assert machine.chosen(1).seconds == {}
    assert machine.passes == 0


@pytest.mark.parametrize("seconds", [0.0001, 0.01, 0.5, 20.0])
def test_measuring_takes_about_a_second_or_a_pass_or_two_a_count(seconds):
    machine = Machine({1: seconds, 2: seconds / 2})
    machine.chosen(2)
    assert machine.now < max(1.0, 4 * seconds)


def test_the_record_holds_what_the_sentence_says():
    found = Threads(2, 4, {1: 0.7, 2: 0.5, 4: 0.5})
    assert found.record() == {"count": 2, "most": 4, "seconds": {"1": 0.7, "2": 0.5, "4": 0.5}}
