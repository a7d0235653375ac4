"""Whatever lies in a file, it is read or refused in one sentence; nothing else is touched."""

import os
import random
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from campaign import case_of, prepare_places
from damage import write
from samples import samples
from structural import attack, joints
from watching import watched

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ATTACKS = tomllib.loads((HERE / "attacks.toml").read_text())["attack"]
SAMPLES = samples()
_SLOW = "artifact"  # samples whose reading hashes half a megabyte
_ALIKE = "blocks"  # samples that differ in one tensor only
_JOINTS, _JOINTS_OF_SLOW = 8, 1
_CASES = 120  # of the campaign


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """Import what readers import, once for all children; and nothing fails by itself."""
    places = prepare_places(tmp_path_factory.mktemp("whole") / "in")
    for sample in SAMPLES.values():
        renew(places)
        write(sample.files, places.named)
        sample.read(places.named, places.work)


def renew(places):
    for folder in (places.named, places.work):
        shutil.rmtree(folder)
        folder.mkdir()


def test_every_structural_attack_is_answered_as_the_list_says(tmp_path):
    places = prepare_places(tmp_path / "in")

    def case(number):
        told = dict(ATTACKS[number])
        name, file, _ = told.pop("on"), told.pop("file"), told.pop("says")
        renew(places)
        write(SAMPLES[name].files, places.named)
        ((way, value),) = told.items()
        attack(places.named / file, way, value, places.outside)
        return f"{way} {str(value)[:60]}", lambda: SAMPLES[name].read(places.named, places.work)

    wrong = []
    for ended in watched(range(len(ATTACKS)), case, places):
        told = ATTACKS[ended.number]
        refused = ended.outcome == "one sentence"
        good = re.search(told["says"], ended.said) if refused else ended.outcome == "read"
        if not good or (not refused and re.search(told["says"], "") is None):
            wrong.append(f"{told['on']}: {ended.done}: {ended.outcome} {ended.said}")
    assert not wrong, "\n".join(wrong)


def test_a_file_that_is_cut_at_any_joint_is_read_or_refused_in_one_sentence(tmp_path):
    places = prepare_places(tmp_path / "in")
    cuts = []
    for sample in SAMPLES.values():
        most = _JOINTS_OF_SLOW if sample.name.startswith((_SLOW, _ALIKE)) else _JOINTS
        for file in sample.attacked:
            cuts += [(sample, file, at) for at in joints(sample.files[file], most)]

    def case(number):
        sample, file, at = cuts[number]
        renew(places)
        write({**sample.files, file: sample.files[file][:at]}, places.named)
        return f"{sample.name} {file} to {at}", lambda: sample.read(places.named, places.work)

    ends = list(watched(range(len(cuts)), case, places))
    assert [f"{e.done}: {e.outcome} {e.said}" for e in ends if e.failed] == []
    assert len(ends) == len(cuts)


def test_a_handful_of_the_campaign_ends_without_a_failure(tmp_path):
    places = prepare_places(tmp_path / "in")
    chosen = [sample for sample in SAMPLES.values() if not sample.name.startswith(_SLOW)]
    ends = list(watched(range(_CASES), lambda number: case_of(number, 1, chosen, places), places))
    assert [f"{e.number} {e.done}: {e.outcome} {e.said}" for e in ends if e.failed] == []


def test_what_must_never_happen_is_noticed(tmp_path):
    """A campaign that cannot fail is a defect: every kind of failure is one here."""
    places = prepare_places(tmp_path / "in")

    def warn():
        import warnings

        warnings.warn("to the user", stacklevel=1)

    deeds = {
        "TRACEBACK ValueError": lambda: int("x"),
        "OUTSIDE": (places.outside / "secret.txt").read_bytes,
        "OUTSIDE ": lambda: (places.named / "new").write_bytes(b""),
        "MEMORY": lambda: bytes(2 << 30),
        "WARNING UserWarning": warn,
        "CRASH SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "read": lambda: (places.work / "new").write_bytes(b""),
    }
    wanted = list(deeds)
    ends = watched(range(len(wanted)), lambda number: ("", deeds[wanted[number]]), places)
    assert [ended.outcome for ended in ends] == [name.strip() for name in wanted]


def test_a_case_is_repeated_by_its_number(tmp_path):
    chosen = list(SAMPLES.values())
    places = prepare_places(tmp_path / "in")
    numbers = random.Random(0).sample(range(10_000), 12)
    said = [[case_of(number, 0, chosen, places)[0] for number in numbers] for _ in range(2)]
    assert said[0] == said[1]
