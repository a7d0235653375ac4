"""The reference pages, made from the records: `python -m edge_train.cli.reference`.

A test compares them with what is in the repository, so no flag, key, method or command is added,
renamed or lost in silence. A change of these pages is a change of the public surface: say why.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train.cli import commands, reference_python
from edge_train.cli.help import help_text
from edge_train.cli.others import FOREIGN, Foreign
from edge_train.cli.reference_formats import artifact_page, report_page, training_artifact_page
from edge_train.cli.reference_methods import methods_page
from edge_train.cli.shared_verbs import commands_of, shared
from edge_train.command import Command
from edge_train.errors import INTERRUPTED, NOT_STARTED, STOPPED, UNREAD
from edge_train.formats import picture_folders, pictures
from edge_train.formats.architectures import ENCODERS, LANGUAGE_MODELS, REFUSED
from edge_train.formats.tables import names, splits, table
from edge_train.methods import declared_keys, methods, rules, schedules, selections
from edge_train.quant import quants
from edge_train.recipe import GROUPS, Key, Recipe, toml_value
from edge_train.runtimes.engine import engines
from edge_train.tasks import tasks
from edge_train.tasks.task import Task

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
_STATUSES = {
    0: "done",
    NOT_STARTED: "nothing was started; you must change something, and the message says what",
    STOPPED: "training began and stopped; `edge-train run --resume RUN` goes on",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM) and saved; `edge-train run --resume RUN` goes on",
    UNREAD: "nobody reads any further (`| head -1`); a run trains on and ends with its own status",
}
_NOTE = "<!-- made by `python -m edge_train.cli.reference`; edit the records, not this page -->\n"


def pages() -> dict[str, str]:
    """Return every page by the name of its file."""
    return {
        "recipe.md": _recipe(),
        "cli.md": _cli(),
        "python.md": reference_python.page(_NOTE),
        "names.md": _names(),
        "architectures.md": _architectures(),
        "data.md": _data(),
        "other-programs.md": _other_programs(),
        "methods.md": _NOTE + methods_page(),
        "report.md": _NOTE + report_page(),
        "../formats/artifact.md": _NOTE + artifact_page(),
        "../formats/training-artifact.md": _NOTE + training_artifact_page(),
    }


def _recipe() -> str:
    parts = [
        f"{_NOTE}# Keys of a recipe\n",
        "A recipe is a TOML file, words of the command line, or a class in Python. Where a column "
        "is empty, the model, the method or nobody decides. `edge-train init DATA` writes one.\n",
    ]
    for task in tasks.all().values():
        parts.append(f"## {task.name}: {task.says}\n")
        rows = ["| key | flag | what it is | range or words | default |", "|---|---|---|---|---|"]
        keys = sorted(task.recipe.declared().values(), key=lambda key: GROUPS.index(key.group))
        rows += [_row(key, task) for key in keys]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(key: Key, task: Task) -> str:
    names = " ".join(f"`{name}`" for name in (key.name, *key.also))
    flags = ", ".join(f"`{flag}`" for flag in key.spellings)
    allowed = ", ".join(key.choices)
    if key.low is not None and key.high is not None:
        allowed = f"{key.low:g} to {key.high:g}"
    default: Any = key.default
    if default is None:
        default = task.usual(key.name)
    shown = "" if default in (None, "", ()) else f"`{toml_value(default)}`"
    return f"| {names} | {flags} | {key.help} | {allowed} | {shown} |"


def _cli() -> str:
    parts = [f"{_NOTE}# Commands\n", "| command | what it does |", "|---|---|"]
    found = dict(commands.all())
    found |= commands_of(tasks.all())
    parts += [f"| `edge-train {one.name}` | {one.help} |" for one in found.values()]
    parts += ["", "## edge-train run --help", "", "```", help_text("run", None).rstrip(), "```", ""]
    parts += ["Options of one task: [recipe.md](recipe.md). Those of the other commands:\n"]
    for name, one in found.items():
        several = shared(tasks.all()).get(name, {})
        if len(several) < 2:
            parts += _options_of(one)
        for task_name, command in several.items() if len(several) > 1 else ():
            parts += _options_of(command, f" (a run of {task_name})")
    parts += ["## Exit statuses\n", "| status | what happened |", "|---|---|"]
    parts += [f"| {status} | {says} |" for status, says in _STATUSES.items()]
    return "\n".join(parts) + "\n"


def _options_of(command: Command, of: str = "") -> list[str]:
    """Return a table of what a command reads; none if its words are keys of recipes."""
    parser = argparse.ArgumentParser(add_help=False)
    command.add(parser)
    shown = [one for one in parser._actions if one.help != argparse.SUPPRESS]
    rows = [
        f"| {' '.join(f'`{flag}`' for flag in one.option_strings) or f'`{one.metavar}`'} "
        f"| {one.help or ''} |"
        for one in shown
    ]
    head = [f"## edge-train {command.name}{of}\n", "| option | what it is |", "|---|---|"]
    return [*head, *rows, ""] if rows else []


def _names() -> str:
    """Return what can be named, each with its line, and what another package would add."""
    kinds: dict[str, Mapping[str, Any]] = {
        "tasks (`--task`)": tasks.all(),
        "methods (`--method`)": methods.all(),
        "update rules, each a method, too": rules.all(),
        "engines (`--runtime`)": engines.all(),
        "quantisations (`--quant`)": quants.all(),
        "batch selections (`--batch-selection`)": selections.all(),
        "block schedules (`--block-schedule`)": schedules.all(),
    }
    parts = [f"{_NOTE}# Names\n"]
    for title, records in kinds.items():
        parts.append(f"## {title}\n")
        parts += [f"- `{name}`: {record.says}" for name, record in records.items()]
        parts.append("" if records else "None yet; packages may register some.\n")
    parts.append("## Which method runs where\n")
    parts += ["| task | engine | weights | methods |", "|---|---|---|---|"]
    for task in tasks.all().values():
        for engine, use in task.all_uses().items():
            able = [m.name for m in methods.all().values() if m.needs <= use.offers]
            cells = (task.name, engine, ", ".join(use.quants), ", ".join(able))
            parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def _architectures() -> str:
    """Return the kinds of networks that are compared with transformers, and those refused."""
    count = len(ENCODERS) + len(LANGUAGE_MODELS)
    parts = [
        f"{_NOTE}# Architectures\n",
        f"The {count} kinds below are compared with transformers, each as a tiny random model in "
        "`tests/test_architectures.py`: the loss before the first step is that of transformers to "
        "1e-4 of it, and the saved folder loads there with the metric of the report. Every other "
        "kind that transformers knows is taken, too; nobody has compared it.\n",
        "The first column is `model_type` in config.json. Language models are classifiers, too, "
        "where transformers has one of their kind.\n",
    ]
    tables = {"encoders (`--task classify`)": ENCODERS}
    tables["language models (`--task language-model`)"] = LANGUAGE_MODELS
    for title, kinds in tables.items():
        parts += [f"## {len(kinds)} {title}\n", "| kind | known as |", "|---|---|"]
        parts += [f"| `{kind}` | {known} |" for kind, known in kinds.items()]
        parts.append("")
    parts += ["## Refused by name\n", "| kind | why |", "|---|---|"]
    parts += [f"| `{kind}` | {why} |" for kind, why in REFUSED.items()]
    return "\n".join(parts) + "\n"


def _data() -> str:
    """Return how files, columns and parts may be called."""
    word = "`{}`".format
    return "\n".join(
        [
            f"{_NOTE}# Names of files, columns and parts\n",
            "Capitals and small letters are the same. [bring.md](../bring.md) says what becomes of "
            "each.\n",
            "| what | names |",
            "|---|---|",
            f"| pictures | {_listed(picture_folders.SUFFIXES)} |",
            f"| most megapixels of a picture | {pictures.MAX_MEGAPIXELS} |",
            f"| captions beside a picture | {_listed(picture_folders.CAPTIONS)} |",
            f"| tables beside pictures | {_listed(picture_folders.TABLES)} |",
            f"| parts of a folder of pictures | {_parts(picture_folders.PARTS)} |",
            f"| tables, each with {word('.gz')} behind it, too | {_listed(table.KINDS)} |",
            f"| column of texts | {_listed(names.TEXTS)} |",
            f"| column of labels | {_listed(names.LABELS)} |",
            f"| columns of pairs | {', '.join(' and '.join(map(word, p)) for p in names.PAIRS)} |",
            f"| parts of a folder of tables or texts | {_parts(splits.NAMES)} |",
            "",
        ]
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _parts(parts: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{part}: {_listed(words)}" for part, words in parts.items())


def _other_programs() -> str:
    """Return the flags of other programs: those that are ours, and what becomes of the rest."""
    parts = [
        f"{_NOTE}# Flags of other programs\n",
        "What the examples of diffusers (textual inversion), transformers (text classification), "
        "kohya's sd-scripts (textual inversion) and mlx-lm (lora) say. Hyphens and underscores "
        "are the same. A command may be pasted whole: `accelerate launch ... .py` is left out.\n",
        "## Other spellings of our flags\n",
        "| flag | ours |",
        "|---|---|",
    ]
    keys = [key for task in tasks.all().values() for key in task.recipe.declared().values()]
    keys += declared_keys().values()
    same = {other: key.spellings[0] for key in keys for other in key.spellings[1:]}
    parts += [f"| `{other}` | `{ours}` |" for other, ours in sorted(same.items())]
    parts += ["", "## The others\n", "| flag | what becomes of it |", "|---|---|"]
    parts += [f"| `{one.flag}` | {_becomes(one)} |" for _, one in sorted(FOREIGN.items())]
    return "\n".join(parts) + "\n"


def _becomes(one: Foreign) -> str:
    """Return what becomes of a flag of another program."""
    clauses = []
    if one.ours or one.done:
        at = " or ".join(f"`{value}`" for value in one.only if value not in ("", "true"))
        what = f"`{one.ours}`" if one.ours else f"left out, {one.done}"
        clauses.append(f"with {at}: {what}" if at else what)
    if one.times:
        flag = Recipe.declared()[one.times].spellings[0]
        clauses.append(f"with another number: multiplies `{flag}`, if that is given")
    if one.instead:
        clauses.append(f"{'else refused' if clauses else 'refused'}: {one.instead}")
    return "; ".join(clauses)


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
