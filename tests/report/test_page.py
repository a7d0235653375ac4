"""The report says what the journal says, for finished, unfinished and hostile runs."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_train.errors import RunFolderError
from edge_train.records import journal
from edge_train.records.history import summarize
from edge_train.records.journal import Journal
from edge_train.registry import load
from edge_train.report.curves import memory_over_time
from edge_train.report.html import section, table
from edge_train.report.section import Section, sections
from edge_train.run.ending import write_report
from edge_train.tasks import tasks

KEYS = (
    "status task method runtime device quant model_sha256 seed threads cap_bytes plan_peak_bytes "
    "measured_peak_bytes measured_anon_bytes steps forwards backwards seconds_total "
    "seconds_per_step resumed eval metrics versions outputs"
)  # the contract's, in its order
CAP = 4_000_000_000
GB = 10**9


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "task": "personalize",
        "method": "zo",
        "runtime": "torch",
        "device": "cpu",
        "dtype": "float32",
        "quant": "none",
        "model": "tiny-sd",
        "model_sha256": "3f" * 32,
        "seed": 7,
        "threads": 1,
        "cap_bytes": CAP,
        "versions": {"edge-train": "0.1.0", "numpy": "2.4.6"},
        "token": "<my-dog>",
        "class_word": "dog",
        "learn": "object",
        "resolution": 32,
        "window": [300, 1000],
        "steps_planned": 900,
        "prompts": ["a photo of a {}", "a red {} on a blue background"],
        "photos": [
            {
                "name": "one.png",
                "caption": "a red dog",
                "note": "640x480, cropped to the central 480x480",
                "picture": "samples/photo-01.png",
            }
        ],
        "skipped": [["notes.pdf", "not a photo"]],
        "captions_from": "files",
        **changes,
    }


def start(**changes: Any) -> dict[str, Any]:
    rows = [
        {"epsilon": 0.01, "agreement": 0.42, "noise": 0.3},
        {"epsilon": 0.1, "agreement": 0.97, "noise": 0.01},
    ]
    return {
        "kind": "start",
        "version": 1,
        "facts": facts(**changes),
        "slope_check": {"epsilon": 0.1, "rows": rows},
        "eval": 0.2,
        "forwards": 100,
        "seconds": 5.0,
        "peak_bytes": GB,
    }


def step(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "step",
        "step": number,
        "loss": 0.2 - 0.001 * number,
        "scalars": [0.1],
        "forwards": 10,
        "backwards": 0,
        "peak_bytes": GB + number,
        "resident_bytes": GB - 1000,
        "seconds": 2.0,
        "eval": None,
        "skipped": None,
        **changes,
    }


def end(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "end",
        "status": "done",
        "step": number,
        "best_step": 2,
        "metrics": {"class_accuracy": 0.75},
        "outputs": {"token": "my-dog.safetensors"},
        "measured_peak_bytes": 2 * GB,
        "measured_anon_bytes": GB,
        "seconds_total": 60.0,
        **changes,
    }


def write(run: Path, *records: dict[str, Any]) -> Path:
    run.mkdir(exist_ok=True)
    book = Journal(run / "journal.jsonl")
    for record in records:
        book.append(record)
    book.close()
    return run


def picture(path: Path, side: int = 32) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects tags, addresses and headings, and fails on tags that do not match."""

    VOID = frozenset(("meta", "img", "path", "circle", "input", "br"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sequence: list[tuple[str, tuple[str, ...]]] = []  # of tags, with what they say
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sequence.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a finished run with pictures, one roll-back and one resume."""
    run = write(
        tmp_path / "run",
        start(),
        step(0),
        step(1, eval=0.15),
        {"kind": "event", "step": 1, "text": "previews samples/step-00000002-01.png ..."},
        {"kind": "resume", "step": 2, "seconds": 0.0},
        step(2, loss=None, skipped="a loss is NaN"),
        step(3, eval=0.16),
        end(4),
    )
    for name in ("photo-01", "before-01", "after-01", "step-00000001-01", "step-00000002-01"):
        picture(run / "samples" / f"{name}.png")
    return run


def test_summary_has_the_keys_of_the_contract(run: Path) -> None:
    keys = KEYS.split()
    assert [key for key in summarize(run) if key in keys] == keys  # more may be added


def test_summary_counts_what_the_journal_holds(run: Path) -> None:
    summary = summarize(run)
    assert summary["status"] == "done"
    assert summary["steps"] == 4
    assert summary["forwards"] == 140
    assert summary["backwards"] == 0
    assert summary["resumed"] == 1
    assert summary["seconds_per_step"] == 2.0
    assert summary["measured_peak_bytes"] == 2 * GB
    assert summary["measured_anon_bytes"] == GB
    assert summary["eval"] == {"first": 0.2, "best": 0.15, "best_step": 2, "last": 0.16}
    assert summary["metrics"] == {"class_accuracy": 0.75}
    assert summary["outputs"] == {"token": "my-dog.safetensors"}


def test_time_of_a_killed_process_counts_its_steps(run: Path) -> None:
    assert summarize(run)["seconds_total"] == 5.0 + 2 * 2.0 + 60.0


def test_last_end_wins(tmp_path: Path) -> None:
    first = end(1, status="interrupted", seconds_total=10.0, measured_peak_bytes=3 * GB)
    resume = {"kind": "resume", "step": 1, "seconds": 0.0}
    run = write(tmp_path / "run", start(), step(0), first, resume, step(1), end(2))
    summary = summarize(run)
    assert summary["status"] == "done"
    assert summary["seconds_total"] == 70.0
    assert summary["measured_peak_bytes"] == 3 * GB


@pytest.mark.parametrize("tail", [[], [step(0)], [step(0), end(1), step(1)]])
def test_run_without_an_end_is_running(tmp_path: Path, tail: list[dict[str, Any]]) -> None:
    run = write(tmp_path / "run", start(), *tail)
    assert summarize(run)["status"] == "running"
    Outline(page(run))


def test_interrupted_run_that_was_resumed_is_running(tmp_path: Path) -> None:
    resume = {"kind": "resume", "step": 1, "seconds": 0.0}
    run = write(tmp_path / "run", start(), step(0), end(1, status="interrupted"), resume)
    assert summarize(run)["status"] == "running"


def test_peak_above_the_cap_is_reported_as_failed(tmp_path: Path) -> None:
    run = write(tmp_path / "run", start(), step(0, peak_bytes=CAP + 1), end(1))
    assert summarize(run)["status"] == "over cap"
    assert "failed: held more than its cap" in page(run)


def test_best_evaluation_may_be_the_start(tmp_path: Path) -> None:
    run = write(tmp_path / "run", start(), step(0, eval=0.3), end(1))
    assert summarize(run)["eval"] == {"first": 0.2, "best": 0.2, "best_step": 0, "last": 0.3}


def test_json_file_is_the_summary(run: Path) -> None:
    write_report(run)
    assert json.loads((run / "report.json").read_text()) == summarize(run)


def test_page_needs_nothing_from_outside(run: Path) -> None:
    text = page(run)
    outline = Outline(text)
    assert outline.addresses
    assert all(address.startswith("data:image/") for address in outline.addresses)
    assert not {"script", "link", "iframe", "object"} & outline.tags
    assert "url(" not in text
    assert "@import" not in text


def test_page_has_every_part(run: Path) -> None:
    assert Outline(page(run)).headings == [
        "Photos used (1)",
        "Before and after",
        "Load it like this",
        "Curves",
        "On the way",
        "Slope check",
        "Events",
        "Settings",
    ]


def test_the_sentence_stands_between_the_pictures_and_how_to_load_the_file(run: Path) -> None:
    text = page(run)
    words = ["Before and after", "Learned in 1m09s, held 2 GB of 4 GB.", "Load it like this"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_page_embeds_the_pictures_as_they_are(run: Path) -> None:
    content = base64.b64encode((run / "samples" / "after-01.png").read_bytes()).decode()
    assert f'<img class="tiny" src="data:image/png;base64,{content}"' in page(run)


def test_page_tells_events_in_order(run: Path) -> None:
    text = page(run)
    words = ["previews samples", ">resumed<", "rolled back: a loss is NaN", "ended: done"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_notices_are_in_the_page_and_the_summary_once(tmp_path: Path) -> None:
    line = "3 of 80 texts are longer than 64 tokens & lose their end"
    run = write(tmp_path / "run", start(notices=[line]), step(0), end(1))
    html = page(run)
    assert html.count("lose their end") == 1
    assert "Notices" in Outline(html).headings
    assert summarize(run)["notices"] == [line]
    assert "Notices" not in page(write(tmp_path / "none", start(), step(0), end(1)))


def test_page_says_how_to_load_the_token(run: Path) -> None:
    text = page(run)
    for words in ("load_textual_inversion", "embedding:my-dog", "--embd-dir", "A1111, Forge"):
        assert words in text


HOSTILE = (
    "<script>alert('x')</script>\"&amp;",
    "'\"><img src=x onerror=alert(1)>",
    "</style></title></pre></details><b>",
    "\u202e\u05d0\u05d1 <b>\u200f",
    "\udcff\ud800",  # a name of a file that is no Unicode
    "{{ 7 * 7 }}{% raw %}",
    "<" * 10_000,
)


def told(folder: Path, words: str) -> str:
    """Return the page of a run all of whose texts are the same words, with the sections of all."""
    photo = {"name": words, "caption": words, "note": words, "picture": "samples/photo-01.png"}
    mistake = {"row": 0, "label": words, "found": words, "text": words, "probability": 0.5}
    scores = {words: 0.5, "confusion": [[1, 0], [0, 1]], "mistakes": [mistake]}
    names = ("task", "method", "model", "token", "class_word", "device", "captions_from")
    run = write(
        folder,
        start(
            **dict.fromkeys(names, words),
            prompts=[words],
            photos=[photo],
            skipped=[[words, words]],
            versions={words: words, "edge-train": words},
            notices=[words] * 9,
            labels=[words, words],
            blocks=[words],
        ),
        step(0, skipped=words, block_losses=[0.5]),
        {"kind": "event", "step": 0, "text": words},
        end(1, status=words, outputs=dict.fromkeys(OUTPUTS, words[:40]), metrics=scores),
    )
    for name in ("photo-01", "before-01", "after-01"):
        picture(run / "samples" / f"{name}.png")
    for name in ("before-01", "after-01"):
        (run / "samples" / f"{name}.txt").write_bytes(words.encode("utf-8", "replace"))
    return page(run)


OUTPUTS = ("token", "model", "adapter", "difference", "network")
LENGTH = 400_000  # characters of a page whose every text has 10,000


@pytest.mark.parametrize("evil", HOSTILE)
def test_words_of_the_user_never_become_a_part_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: str
) -> None:
    named = [task.sections for task in tasks.all().values() if task.sections]
    every = [one for name in named for one in load(name)()]
    add(monkeypatch, *(replace(one, name=f"{n}", task=None) for n, one in enumerate(every)))
    harmless, text = told(tmp_path / "harmless", "x"), told(tmp_path / "evil", evil)
    assert "This section could not be made" not in harmless
    assert Outline(text).sequence == Outline(harmless).sequence
    assert len(text) < LENGTH
    if evil.startswith("{{"):
        assert evil in text and "49" not in text


def test_picture_outside_the_run_is_not_embedded(tmp_path: Path) -> None:
    picture(tmp_path / "secret" / "secret.png")
    photo = {"name": "x", "caption": None, "note": "", "picture": "../secret/secret.png"}
    run = write(tmp_path / "run", start(photos=[photo]), step(0))
    assert not Outline(page(run)).addresses


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\0\0"])
def test_damaged_picture_leaves_a_gap(run: Path, content: bytes) -> None:
    (run / "samples" / "after-01.png").write_bytes(content)
    assert "not readable" in page(run)


def test_large_photos_are_embedded_small(run: Path) -> None:
    before = len(page(run))
    picture(run / "samples" / "photo-01.png", side=1024)
    assert len(page(run)) < before + 150_000


def test_records_that_say_what_no_run_says_leave_the_rest_of_the_page(tmp_path: Path) -> None:
    metrics = {"confusion": 3, "f1": 0.5}
    first = start(labels=3, steps_planned="many") | {"slope_check": {"epsilon": 0.1, "rows": 7}}
    run = write(tmp_path / "run", first, step(0), end(1, outputs={}, metrics=metrics))
    text = page(run)
    Outline(text)
    assert text.count("This section could not be made") == 2
    assert "Loss" in text and "Events" in text


def test_task_without_pictures_has_a_page(tmp_path: Path) -> None:
    first = start(task="classify")
    drop = ("token", "class_word", "learn", "resolution", "photos", "skipped", "prompts", "window")
    for name in drop:
        del first["facts"][name]
    first |= {"slope_check": None, "eval": None}
    first["facts"]["cap_bytes"] = None
    run = write(tmp_path / "run", first, step(0), step(1), end(2, outputs={}, metrics={"f1": 0.5}))
    assert Outline(page(run)).headings == ["Curves", "Events", "Settings"]


def test_long_run_has_a_small_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    losses = rng.exponential(0.2, 5000).tolist()
    run = write(tmp_path / "run", start(), *(step(i, loss=x) for i, x in enumerate(losses)))
    assert len(page(run)) < 60_000


def test_constant_and_single_values_have_curves(tmp_path: Path) -> None:
    run = write(tmp_path / "run", start(), *(step(i, loss=0.0, eval=0.2) for i in range(9)))
    numbers = re.findall(r'd="M([^"]*)"', page(run))
    assert numbers
    assert not any("nan" in text or "inf" in text for text in numbers)


def test_torn_journal_has_a_report(run: Path) -> None:
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert summarize(run)["status"] == "running"
    Outline(page(run))


def test_a_journal_cut_or_damaged_anywhere_after_its_first_record_has_a_page(run: Path) -> None:
    path = run / "journal.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for place in np.linspace(first, len(whole) - 1, 9).astype(int).tolist():
        flipped = bytes([whole[place] ^ 0x55])
        for content in (whole[:place], whole[:place] + flipped + whole[place + 1 :]):
            path.write_bytes(content)
            text = page(run)
            Outline(text)
            assert "could not be made" not in text
            assert "Not finished: " in text or summarize(run)["status"] == "done"


def test_the_page_of_a_run_that_goes_on_says_how_far_it_is(tmp_path: Path) -> None:
    text = page(write(tmp_path / "run", start(), step(0), step(1)))
    assert "Not finished: 2 of 900 steps so far in 9s, held 1 GB of 4 GB." in text
    assert "http-equiv" not in text  # it refreshes nothing by itself


def test_folder_without_a_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot be read"):
        write_report(tmp_path)
    with pytest.raises(RunFolderError, match="nothing was trained yet"):
        write_report(write(tmp_path / "run"))


def watched(seconds: list[float], held: list[int]) -> dict[str, Any]:
    anon = [count // 2 for count in held]
    return {
        "kind": "memory",
        "step": 1,
        "seconds": seconds,
        "held_bytes": held,
        "anon_bytes": anon,
    }


def test_memory_over_time_shows_every_process_the_plan_and_what_the_guard_did(tmp_path: Path):
    act = {"kind": "event", "step": 1, "text": "memory: released", "seconds": 2.1}
    run = write(
        tmp_path / "run",
        start(plan_peak_bytes=2 * GB, wall="data limit and cgroup v1"),
        step(0),
        watched([0.0, 2.0, 4.0], [GB, 3 * GB, GB]),
        act,
        {"kind": "resume", "step": 1, "seconds": 0.0, "changes": {"batch_limit": 1}},
        step(1),
        watched([0.0, 1.0], [GB, GB + 7]),
        end(
            2,
            weights_bytes=100,
            weights_reread_bytes=250,
            weights_order="block by block",
            weights_passes=6,
            weights_evaluations=12,
        ),
    )
    records, _ = journal.read(run / "journal.jsonl")
    held, anon, gpu, acts = memory_over_time(records)
    assert list(held) == [(0.0, GB), (2.0, 3 * GB), (4.0, GB), (4.0, GB), (5.0, GB + 7)]
    assert [y for _, y in anon] == [y // 2 for _, y in held]
    assert list(acts) == [(2.0, 3 * GB)] and not gpu
    html = page(run)
    assert 'class="event-dot"' in html and "plan 2 GB" in html
    assert "memory: released" in html and "resumed smaller (batch_limit 1)" in html
    assert "2.5 times" in html
    assert "block by block, 6 passes for 12 forward passes" in html
    summary = summarize(run)
    assert summary["wall"] == "data limit and cgroup v1"
    assert (summary["weights_bytes"], summary["weights_reread_bytes"]) == (100, 250)


def test_a_resumed_process_is_judged_by_the_cap_it_was_given(tmp_path: Path):
    resumed = {"kind": "resume", "step": 1, "seconds": 0.0, "cap_bytes": GB}
    low = write(tmp_path / "low", start(), step(0), resumed, step(1, peak_bytes=2 * GB))
    assert summarize(low)["status"] == "over cap"
    high = write(tmp_path / "high", start(cap_bytes=GB), {**resumed, "step": 0, "cap_bytes": CAP})
    book = Journal(high / "journal.jsonl")
    book.append(step(0, peak_bytes=2 * GB))
    book.close()
    assert summarize(high)["status"] == "running"
    assert summarize(high)["cap_bytes"] == CAP


def add(patch: pytest.MonkeyPatch, *found: Any) -> None:
    """Register sections as another package would."""
    patch.setattr(sections, "all", lambda: {one.name: one for one in found})


def hello(run: Path, summary: Any, records: Any) -> str:
    return section("Hello", table(("who",), [("world",)]), True)


def nothing(run: Path, summary: Any, records: Any) -> str:
    return ""


def fails(run: Path, summary: Any, records: Any) -> str:
    raise RuntimeError("<no luck>")


def not_html(run: Path, summary: Any, records: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("place", "before"),
    [
        ("top", "Load it like this"),
        ("result", "Curves"),
        ("curves", "Slope check"),
        ("data", "Slope check"),
        ("end", None),
    ],
)
def test_a_section_stands_in_its_place(
    run: Path, monkeypatch: pytest.MonkeyPatch, place: str, before: str | None
) -> None:
    add(monkeypatch, Section(name="hello", render=hello, place=place))
    headings = Outline(page(run)).headings
    following = [*headings, None][headings.index("Hello") + 1]
    assert following == before


def test_a_section_of_one_task_is_not_in_the_page_of_another(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, Section(name="hello", render=hello, task="network"))
    assert "Hello" not in page(run)
    add(monkeypatch, Section(name="hello", render=hello, task="personalize"))
    assert "Hello" in page(run)


@pytest.mark.parametrize(
    ("render", "why"),
    [
        (fails, "RuntimeError: &lt;no luck&gt;"),
        (not_html, "TypeError: it returned NoneType, not HTML"),
    ],
)
def test_a_section_that_fails_is_a_sentence_in_its_place(
    run: Path, monkeypatch: pytest.MonkeyPatch, render: Any, why: str
) -> None:
    headings = Outline(page(run)).headings
    add(monkeypatch, Section(name="odd", render=render, place="curves"))
    text = page(run)
    assert f"This section could not be made: {why}" in text
    place = headings.index("On the way") + 1
    assert Outline(text).headings == [*headings[:place], "odd", *headings[place:]]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_memory_that_does_not_suffice_for_a_section_is_no_sentence_in_the_page(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The run hears of it, and goes on in a smaller way: a sentence hid it."""

    def render(*_: object) -> str:
        raise error

    add(monkeypatch, Section(name="large", render=render))
    with pytest.raises(type(error)):
        page(run)


def test_what_cannot_be_loaded_is_said_and_does_not_stop_the_report(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, replace(tasks.get("network")))  # a record of another kind
    monkeypatch.setattr(sections, "broken", lambda: {"lost": "toys:LOST: no such luck"})
    gone = replace(tasks.get("personalize"), sections="toys_that_are_gone:sections")
    monkeypatch.setattr(tasks, "all", lambda: {gone.name: gone})
    text = page(run)
    assert text.count("This section could not be made: ") == 3
    for why in ("toys:LOST: no such luck", "not a Section", "toys_that_are_gone"):
        assert why in text
    assert "Curves" in Outline(text).headings


def test_a_place_that_is_not_there_is_refused_when_the_section_is_made() -> None:
    with pytest.raises(ValueError, match="'middle' is none of"):
        Section(name="hello", render=hello, place="middle")


def test_a_fact_is_in_the_settings_unless_its_section_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", start(flavor="vanilla"), step(0))
    for render, counted in ((nothing, 1), (hello, 0)):
        add(monkeypatch, Section(name="flavors", render=render, shows=("flavor",)))
        assert page(run).count("vanilla") == counted


@pytest.mark.parametrize("losses", [{}, {"block_losses": [0.2, None]}])
def test_the_page_of_a_network_names_every_block_with_a_curve_or_without(
    tmp_path: Path, losses: dict[str, Any]
) -> None:
    first = start(task="network", network="mlp 4", data="x.npz", blocks=["dense 4", "dense 3"])
    text = page(write(tmp_path / "run", first, step(0, **losses), step(1, **losses)))
    assert "dense 4, dense 3" in text
    assert ("Block 1: dense 4" in text) == bool(losses)
