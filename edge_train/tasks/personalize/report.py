"""Sections of the report of a learned word or LoRA: pictures, photos, how to load it."""

import re
from pathlib import Path

from edge_train.formats.embedded import EMBEDDED
from edge_train.records.folder import RunFolder
from edge_train.report.html import Record, inside, picture, render, section, table
from edge_train.report.section import Section
from edge_train.tasks.personalize.captions import file_name_of, without_class
from edge_train.tasks.personalize.loading import (
    model_for_others,
    ways_to_load,
    ways_to_load_lora,
)

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
        prompt = prompts[number - 1] if number <= len(prompts) else ""
        pairs.append(
            (_spelled(prompt, facts), [picture(path, words) for path, words in shots if path])
        )
    return section("Before and after", render("pairs.html", pairs=pairs), bool(pairs))


def _spelled(words: str, facts: Record) -> str:
    """Return a caption or a prompt with the token, or the words of a LoRA, in its place."""
    if facts.get("trigger") and facts.get("learn") != "style":
        words = without_class(words, str(facts.get("class_word")))
    return words.replace("{}", str(facts.get("trigger") or facts.get("token") or "{}"))


def _strip(run: Path) -> str:
    """Return the first prompt's previews on the way, at most eight of them."""
    previews = {step: shots[1] for step, shots in _previews(run).items() if 1 in shots}
    steps = sorted(previews)
    chosen = sorted({steps[i * (len(steps) - 1) // (_STRIP - 1)] for i in range(_STRIP) if steps})
    pictures = [picture(previews[step], f"step {step:,}") for step in chosen]
    return section("On the way", render("strip.html", pictures=pictures), len(chosen) > 1)


def _samples(run: Path, name: str) -> dict[int, Path]:
    found = {}
    for path in RunFolder(run).samples.glob(f"{name}-*.png"):
        if match := re.fullmatch(rf"{name}-(\d+)\.png", path.name):
            found[int(match[1])] = path
    return found


def _previews(run: Path) -> dict[int, dict[int, Path]]:
    """Return step -> prompt number -> picture."""
    found: dict[int, dict[int, Path]] = {}
    for path in RunFolder(run).samples.glob("step-*.png"):
        if match := re.fullmatch(r"step-(\d+)-(\d+)\.png", path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    return found


def _photos(run: Path, facts: Record) -> str:
    photos = []
    for photo in facts.get("photos") or ():
        path = inside(run, photo.get("picture"))
        shown = picture(path, photo["name"], small=True) if path else None
        caption = _spelled(photo.get("caption") or "", facts)
        photos.append({"picture": shown, "caption": caption, "note": photo.get("note")})
    skipped = table(
        ("file", "left aside because"), ((name, why) for name, why in facts.get("skipped") or ())
    )
    source = facts.get("captions_from")
    intro = f"Captions from {source}." if source else ""
    body = render("photos.html", intro=intro, photos=photos) + skipped
    return section(f"Photos used ({len(photos)})", body, bool(photos))


def _loading(run: Path, summary: Record, facts: Record) -> str:
    if folder := summary["outputs"].get("lora"):
        return _loading_lora(run, folder, facts)
    file, token = summary["outputs"].get("token"), facts.get("token")
    if not (file and token):
        return ""
    intro = (
        f"What was learned is in {file} and belongs to the model that it was learned on, "
        f"{_named(facts)}. Outside diffusers the file's name is the word to write."
    )
    ways = ways_to_load(run / file, token, _model(run, facts))
    body = render("loading.html", intro=intro, ways=ways)
    return section("Load it like this", body, True)


def _named(facts: Record) -> str:
    """Return the model of a run in words."""
    exported = facts.get("runtime") == "onnx" and facts.get("model") != EMBEDDED
    return f"{'the one exported as ' if exported else ''}{facts.get('model')}"


def _model(run: Path, facts: Record) -> str | None:
    """Return where other programs find the model; None where nobody knows."""
    exported = facts.get("runtime") == "onnx"
    return model_for_others(run, str(facts.get("model")), exported=exported)


def _loading_lora(run: Path, folder: str, facts: Record) -> str:
    name, trigger = file_name_of(str(facts.get("token"))), str(facts.get("trigger"))
    intro = (
        f"What was learned is a LoRA in {folder} and belongs to the model that it was trained "
        f"on, {facts.get('model')}, or to models that were made of it. Prompts say {trigger!r}."
    )
    ways = ways_to_load_lora(run / folder, name, trigger, _model(run, facts))
    return section("Load it like this", render("loading.html", intro=intro, ways=ways), True)


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="photos",
            render=lambda run, summary, records: _photos(run, records[0]["facts"]),
            place="top",
            shows=("photos", "skipped", "captions_from"),
        ),
        Section(
            name="before and after",
            render=lambda run, summary, records: _pictures(run, records[0]["facts"]),
            place="top",
            shows=("prompts",),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(run, summary, records[0]["facts"]),
            place="result",
        ),
        Section(
            name="on the way", render=lambda run, summary, records: _strip(run), place="curves"
        ),
    )
