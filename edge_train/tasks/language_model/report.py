"""Sections of the report of a language model: what it writes before and after, how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge_train.records.folder import RunFolder
from edge_train.report.html import inside, render, section
from edge_train.report.section import Section
from edge_train.tasks.prompt_shown import shown_prompt

Record = Mapping[str, Any]
_MOST_BYTES = 10_000  # of a text that is shown
_TIMES = ("before", "after")
_ASK = 'edge-train generate . --base --prompt "..."\nedge-train chat .\n'
_WHOLE = "edge-train export . OUT --to merged"


def _texts(run: Path, facts: Record) -> Markup:
    """Return what follows the same beginning before training and after it."""
    texts = []
    for number, prompt in enumerate(facts.get("prompts") or (), 1):
        names = {when: f"{RunFolder(run).samples.name}/{when}-{number:02d}.txt" for when in _TIMES}
        written = [(when, _read(inside(run, name))) for when, name in names.items()]
        texts.append({"prompt": prompt, "written": [(w, text) for w, text in written if text]})
    texts = [text for text in texts if text["written"]]
    return section("Before and after", render("texts.html", texts=texts), bool(texts))


def _example(facts: Record) -> Markup:
    """Return a document as the model got it, what is learned of it marked."""
    parts = facts.get("example") or ()
    return section("What is learned", render("learned.html", parts=parts), bool(parts))


def _read(path: Path | None) -> str:
    """Return a text of the run's own; empty where there is none."""
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _loading(summary: Record) -> Markup:
    """Return the lines that load what was trained into transformers and peft."""
    outputs, ways = summary["outputs"], []
    if model := outputs.get("model"):
        lines = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{model}")',
            f'model = AutoModelForCausalLM.from_pretrained("{model}")',
            'ids = tokenizer("How it begins", return_tensors="pt").input_ids',
            "print(tokenizer.decode(model.generate(ids, max_new_tokens=40)[0]))",
        )
        ways.append(("transformers", "\n".join(lines)))
    if difference := outputs.get("difference"):
        ways.append(
            (
                "peft, what training changed",
                "from peft import AutoPeftModelForCausalLM\n\n"
                f'model = AutoPeftModelForCausalLM.from_pretrained("{difference}")',
            )
        )
    if adapter := outputs.get("adapter"):
        ways.append(
            (
                "peft, where the model is a folder or a hub id",
                "from peft import AutoPeftModelForCausalLM\n\n"
                f'model = AutoPeftModelForCausalLM.from_pretrained("{adapter}")',
            )
        )
    if gguf := outputs.get("adapter_gguf"):
        ways.append(("llama.cpp, beside its base", f"llama-cli -m BASE.gguf --lora {gguf}"))
    if adapter:
        ways.append(("edge-train, to ask it and to write other files", _ASK + _WHOLE))
    if ways:
        ways.append(("edge-train, to learn more", "edge-train run --from . --data MORE.txt"))
    intro = "The model is a folder with its tokenizer, as transformers reads it."
    if "adapter" in outputs:
        intro = "What was learned is an adapter, loaded beside the model that training began with."
    body = render("loading.html", intro=intro, ways=ways)
    return section("Load it like this", body, bool(ways))


def _prompt(summary: Record, facts: Record) -> Markup:
    ways = [("edge-train", _ASK.strip())]
    if "accuracy" in summary["metrics"]:  # the answers are a few fixed ones
        ways.append(("edge-train, which answer", 'edge-train infer . "..."'))
    if file := summary["outputs"].get("modelfile"):
        ways.append(("Ollama", f"ollama create NAME -f {file}\nollama run NAME"))
    return shown_prompt(summary, facts, tuple(ways))


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="before and after",
            render=lambda run, summary, records: _texts(run, records[0]["facts"]),
            place="top",
            shows=("prompts",),
        ),
        Section(
            name="learned",
            render=lambda run, summary, records: _example(records[0]["facts"]),
            place="data",
            shows=("example",),
        ),
        Section(
            name="prompt",
            render=lambda run, summary, records: _prompt(summary, records[0]["facts"]),
            place="top",
            shows=("prompt_start",),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(summary),
            place="result",
        ),
    )
