"""What a plan counts beside the run itself."""

import pytest

from edge_train.memory.link import Link
from edge_train.memory.measure import Usage
from edge_train.memory.watch import Watch
from edge_train.recipe import required
from edge_train.run import planning
from edge_train.run.rehearsal import _rehearsal_recipe
from edge_train.tasks import open_job
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.network.recipe import NetworkRecipe

PAGE = 4321  # process id
TREE_BYTES, PAGE_SO_FAR_BYTES = 90_000_000, 7_000_000


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Return a function that plans a run beside which the process `page` offers a page."""
    table = tmp_path / "rows.csv"
    table.write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},{n % 2}\n" for n in range(64)))
    recipe = NetworkRecipe(data=str(table), network="mlp 4")
    job = open_job(recipe)

    def held(root=None):
        held_bytes = PAGE_SO_FAR_BYTES if root == PAGE else TREE_BYTES
        return Usage(held_bytes, held_bytes, 0)

    monkeypatch.setattr(planning, "measure", held)
    monkeypatch.setattr(planning, "has_counters", lambda: True)

    def plan(page):
        link = Link(Watch(None))
        link.page = page
        return planning.make_plan(job, recipe, link, print)

    return plan


def test_the_page_beside_a_run_is_a_line_of_its_plan_and_counted_once(planned):
    without, beside = planned(None), planned(PAGE)
    for phase, more in zip(without.phases, beside.phases, strict=True):
        lines = {line.name: line.bytes for line in more.lines}
        assert lines["page of --watch"] == planning.PAGE_BYTES
        assert more.bytes == phase.bytes + planning.PAGE_BYTES - PAGE_SO_FAR_BYTES


def test_a_rehearsal_has_no_warm_up_for_which_it_is_too_short():
    small = _rehearsal_recipe(LanguageModelRecipe(model="m", steps=40, warmup=10))
    assert required(small.warmup) < required(small.steps)
