"""The verbs of the command line that every installation has."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edge_train.cli import exports
from edge_train.command import Command
from edge_train.errors import NOT_STARTED, InputError
from edge_train.fleet.command import FLEET
from edge_train.paths import path_word


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the words of `run` and `plan` are read from the keys of recipes."""
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _run(options: argparse.Namespace) -> int:
    from edge_train.cli.help import help_text
    from edge_train.cli.options import Words
    from edge_train.run import session
    from edge_train.run.going_on import going_on
    from edge_train.run.observer import Bar, JsonEvents, Observer
    from edge_train.watch.start import beside

    words = Words(options.words, resumable=True)
    if words.help:
        print(help_text("run", words.named_task()))
        return 0
    observer: Observer = JsonEvents() if words.as_json else Bar()
    if words.report_to is not None:
        from edge_train.run.board import Board

        observer = Board(observer)
    link, began, company = options.link, options.began, None
    if words.fleet is not None:
        from edge_train.fleet.device import company_of

        company = company_of(words.fleet, observer.said)
    if words.resume is not None:
        changes = words.caps()
        with beside(words.resume) if words.watch else nullcontext() as page:
            _count_page(link, page)
            return session.resume(words.resume, changes, observer, link, began, company)
    recipe = words.read()
    for sentence in words.sentences():
        observer.said(sentence)
    if (begun := words.begun(recipe)) is not None:
        changes = going_on(begun, recipe)
        with beside(begun) if words.watch else nullcontext() as page:
            _count_page(link, page)
            return session.resume(begun, changes, observer, link, began, company)
    out = None if recipe.out is None else Path(recipe.out)
    with beside(out) if words.watch else nullcontext() as page:
        _count_page(link, page)
        return session.run(recipe, observer, link, began, company)


def _count_page(link: Any, page: int | None) -> None:
    """Have the page beside a supervised run planned for; nobody else holds a run to a cap."""
    if link is not None:
        link.page = page


def _plan(options: argparse.Namespace) -> int:
    from edge_train.cli.help import help_text
    from edge_train.cli.options import PLAN_ONLY, Words
    from edge_train.run.container import check_container, fitted
    from edge_train.run.disk import check_disk
    from edge_train.run.plan_text import plan_text
    from edge_train.run.survey import survey

    everything, rehearse = (flag in options.words for flag in PLAN_ONLY)
    words = Words([w for w in options.words if w not in PLAN_ONLY], resumable=False)
    if words.help:
        print(help_text("plan", words.named_task()))
        return 0
    recipe = words.read()
    recipe, notes = fitted(recipe)
    found = survey(recipe, everything=everything, rehearse=rehearse)
    print(found.json() if words.as_json else plan_text(found, everything=everything))
    for note in (*words.sentences(), *notes, *found.notes):  # the answer comes first
        print(note, file=sys.stderr if words.as_json else sys.stdout)
    if found.too_short:
        print(f"edge-train: {found.too_short}", file=sys.stderr)
        return NOT_STARTED
    if found.fits:
        check_container(recipe, found.shown.plan)
        check_disk(found.shown.recipe, found.name, found.shown.plan)
        return 0
    print(f"edge-train: {found.refusal()}", file=sys.stderr)
    return NOT_STARTED


def _init(options: argparse.Namespace) -> int:
    from edge_train.cli.help import help_text
    from edge_train.cli.init import commented
    from edge_train.cli.options import Words

    words = Words(options.words, resumable=False)
    if words.help:
        print(help_text("init", words.named_task()))
        return 0
    if words.as_json:
        words.refuse("--json is for `edge-train run` and `edge-train plan` only; leave it out.")
    out = words.given.pop("out", None)
    text = commented(words.read(), words.understood)
    if out is None:
        print(text, end="")
        return 0
    try:
        with Path(out).expanduser().open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{out} exists already; remove it, or name another --out.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: of `~`
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{out}: cannot be written ({why}).") from error
    print(f"{out}: edit it, then `edge-train run --recipe {out}`")
    return 0


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")


def _report(options: argparse.Namespace) -> int:
    from edge_train.run.ending import write_report

    print(write_report(options.run))
    return 0


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=path_word,
        nargs="?",
        metavar="RUNS",
        default=Path("runs"),
        help="folder of runs, or one run; default: runs",
    )
    parser.add_argument(
        "--host",
        help="address of this machine to offer the page on, such as 0.0.0.0, with a password that "
        "is printed; default: 127.0.0.1, for this machine alone",
    )
    parser.add_argument("--port", type=int, help="default: 8765 or the next that is free")


def _watch(options: argparse.Namespace) -> int:
    from edge_train.watch.start import become

    return become(options.runs, options.host, options.port)


BENCHES = (
    *("personalize", "sd15", "engine", "engine-quality", "engine-speed", "streaming", "cap"),
    *("container", "ort-training", "lowrank", "llama-7b", "sst2", "tpsgd", "threads"),
    *("plan", "minutes", "time", "import", "watch", "peers", "defaults", "gguf-shapes"),
    *("forward-only", "habit", "noise-budget", "slopes", "likeness", "forwards", "token-prior"),
    *("forwards-engines", "forwards-photos", "kill-tests", "sd15-hours"),
    *("sd15-lora", "forward-lora", "owlore", "gradnormlorp", "colm", "continual"),
    *("retrieve", "search-speed", "images", "camera", "gpu", "audit", "points", "surface"),
    *("fleet", "discrete"),
)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    """Add options that benches share; the page of each, docs/benchmarks/NAME.md, says which."""
    parser.add_argument("name", choices=BENCHES, metavar="NAME")
    parser.add_argument("--data", type=path_word, help="examples, for a bench that needs some")
    parser.add_argument("--model", type=path_word, help="model, for a bench that needs one")
    parser.add_argument("--features", type=path_word, help="folder of networks that see pictures")
    parser.add_argument("--seeds", type=int, default=3, help="how many; default: 3")
    parser.add_argument("--out", type=path_word, default=Path("runs/bench"))
    parser.add_argument("--samples", type=int, help="samples, draws or items of each measurement")
    parser.add_argument(
        "--limit", type=int, help="where it ends: steps, forward passes, runs, tasks or bytes"
    )
    parser.add_argument("--python", help="interpreter of the device environment")
    parser.add_argument("--device", help="where it computes, for a bench that has a choice")
    parser.add_argument("--size", help="of its models: full or tiny, where the shape is shown")


def _bench(options: argparse.Namespace) -> int:
    import inspect
    from importlib import import_module

    from edge_train.bench.ended import ends_what_it_started

    bench = import_module(f"edge_train.bench.{options.name.replace('-', '_')}")
    keys = ("data", "model", "features", "python", "samples", "limit", "device", "size")
    typed: dict[str, Any] = {key: getattr(options, key) for key in keys}
    given = {name: value for name, value in typed.items() if value is not None}
    takes = inspect.signature(bench.main).parameters
    for name in given.keys() - takes.keys():
        raise InputError(f"bench {options.name} does not take --{name}; leave it out.")
    with ends_what_it_started():
        print(bench.main(options.out, options.seeds, **given))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from edge_train.doctor import examine

    print(examine())
    return 0


COMMANDS = (
    Command(name="run", help="train", add=_no_options, run=_run),
    Command(
        name="plan",
        help="what a run would hold, and how long it would take; trains nothing",
        add=_no_options,
        run=_plan,
    ),
    Command(
        name="init",
        help="a commented recipe to start from: init DATA --out FILE.toml",
        add=_no_options,
        run=_init,
    ),
    Command(
        name="export",
        help="write an artifact for the inference engine",
        add=exports.add,
        run=exports.run,
    ),
    Command(
        name="report",
        help="rebuild report.json and report.html",
        add=_add_report,
        run=_report,
    ),
    Command(
        name="watch",
        help="a page of running and finished runs, for a device without a screen",
        add=_add_watch,
        run=_watch,
    ),
    FLEET,
    Command(
        name="bench",
        help="the benchmarks behind every published number",
        add=_add_bench,
        run=_bench,
    ),
    Command(
        name="doctor",
        help="engines, devices and cap mechanisms found here",
        add=lambda parser: None,
        run=_doctor,
    ),
)
