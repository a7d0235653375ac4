"""Sections of the report of a learned word: pictures, photos, how to load it."""

import re
from html import escape
from pathlib import Path

from edge_train.report.html import Record, figure, inside, section, table
from edge_train.report.section import Section
from edge_train.tasks.personalize.loading import ways_to_load

_STRIP = 8  # previews in the film strip


def _pictures(run: Path, facts: Record) -> str:
    """Return pairs of pictures: the prompt before training and with what was learned."""
    before, after = _samples(run, "before"), _samples(run, "after")
    label = "after"
    if not after and (previews := _previews(run)):
        last = max(previews)
        after, label = previews[last], f"after {last:,} steps"
    prompts = facts.get("prompts") or []
    pairs = []
    for number in sorted(before.keys() | after.keys()):
        shots = [(before.get(number), "before"), (after.get(number), label)]
        figures = "".join(figure(path, words) for path, words in shots if path)
        prompt = prompts[number - 1] if number <= len(prompts) else ""
        prompt = prompt.replace("{}", str(facts.get("token") or "{}"))
        pairs.append(f'<div class="pair">{figures}<p>{escape(prompt)}</p></div>')
    return section("Before and after", f'<div class="pairs">{"".join(pairs)}</div>', bool(pairs))


def _strip(run: Path) -> str:
    """Return the first prompt's previews on the way, at most eight of them."""
    previews = {step: shots[1] for step, shots in _previews(run).items() if 1 in shots}
    steps = sorted(previews)
    chosen = sorted({steps[i * (len(steps) - 1) // (_STRIP - 1)] for i in range(_STRIP) if steps})
    figures = "".join(figure(previews[step], f"step {step:,}") for step in chosen)
    return section("On the way", f'<div class="strip">{figures}</div>', len(chosen) > 1)


def _samples(run: Path, name: str) -> dict[int, Path]:
    found = {}
    for path in (run / "samples").glob(f"{name}-*.png"):
        if match := re.fullmatch(rf"{name}-(\d+)\.png", path.name):
            found[int(match[1])] = path
    return found


def _previews(run: Path) -> dict[int, dict[int, Path]]:
    """Return step -> prompt number -> picture."""
    found: dict[int, dict[int, Path]] = {}
    for path in (run / "samples").glob("step-*.png"):
        if match := re.fullmatch(r"step-(\d+)-(\d+)\.png", path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    return found


def _photos(run: Path, facts: Record) -> str:
    cards = []
    for photo in facts.get("photos") or ():
        path = inside(run, photo.get("picture"))
        picture = figure(path, photo["name"], small=True) if path else ""
        note, caption = photo.get("note"), photo.get("caption")
        words = f'<p class="caption">{escape(caption)}</p>' if caption else ""
        words += f"<p>{escape(note)}</p>" if note else ""
        cards.append(f'<div class="photo">{picture}{words}</div>')
    skipped = table(
        ("file", "left aside because"), ((name, why) for name, why in facts.get("skipped") or ())
    )
    source = facts.get("captions_from")
    intro = f'<p class="quiet">Captions from {escape(str(source))}.</p>' if source else ""
    body = f'{intro}<div class="photos">{"".join(cards)}</div>{skipped}'
    return section(f"Photos used ({len(cards)})", body, bool(cards))


def _loading(run: Path, summary: Record, facts: Record) -> str:
    file, token = summary["outputs"].get("token"), facts.get("token")
    if not (file and token):
        return ""
    intro = (
        f'<p class="quiet">The token is in <code>{escape(file)}</code> and belongs to the model it '
        f"was learned on, {escape(str(facts.get('model')))}. Outside diffusers the file's name is "
        "the word to write.</p>"
    )
    ways = ways_to_load(run / file, token, str(facts.get("model")))
    blocks = "".join(f"<h3>{escape(name)}</h3><pre>{escape(code)}</pre>" for name, code in ways)
    return section("Load it like this", intro + blocks, True)


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="before and after",
            render=lambda run, summary, records: _pictures(run, records[0]["facts"]),
            place="top",
            shows=("prompts",),
        ),
        Section(name="on the way", render=lambda run, summary, records: _strip(run), place="top"),
        Section(
            name="photos",
            render=lambda run, summary, records: _photos(run, records[0]["facts"]),
            place="data",
            shows=("photos", "skipped", "captions_from"),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(run, summary, records[0]["facts"]),
            place="end",
        ),
    )
