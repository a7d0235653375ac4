"""The verbs of the command line that every installation has."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edge_train.command import Command
from edge_train.errors import NOT_STARTED, InputError
from edge_train.paths import file_word, path_word

PLAN_ONLY = ("--all", "--rehearse")
OF_A_LANGUAGE_MODEL = ("adapter-gguf", "merged", "merged-gguf", "ollama")  # what `export` writes


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the words of `run` and `plan` are read from the keys of recipes."""
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _run(options: argparse.Namespace) -> int:
    from edge_train.cli.help import help_text
    from edge_train.cli.options import Words
    from edge_train.run import session
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
    if words.resume is not None:
        changes = words.caps()
        with beside(words.resume) if words.watch else nullcontext() as page:
            _count_page(options.link, page)
            return session.resume(words.resume, changes, observer, options.link)
    recipe = words.read()
    for sentence in words.sentences():
        observer.said(sentence)
    out = None if recipe.out is None else Path(recipe.out)
    with beside(out) if words.watch else nullcontext() as page:
        _count_page(options.link, page)
        return session.run(recipe, observer, options.link)


def _count_page(link: Any, page: int | None) -> None:
    """Have the page beside a supervised run planned for; nobody else holds a run to a cap."""
    if link is not None:
        link.page = page


def _plan(options: argparse.Namespace) -> int:
    from edge_train.cli.help import help_text
    from edge_train.cli.options import Words
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
    for note in (*words.sentences(), *notes):  # the answer comes first
        print(note, file=sys.stderr if words.as_json else sys.stdout)
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
        raise InputError(f"{out}: cannot be written ({error}).") from error
    print(f"{out}: edit it, then `edge-train run --recipe {out}`")
    return 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=file_word,
        metavar="MODEL",
        help="embedded, folder, hub id, network.safetensors of a run, or run of a language model",
    )
    parser.add_argument(
        "out", type=path_word, metavar="OUT", help="folder (or .onnx or .gguf file) to make"
    )
    parser.add_argument(
        "--for",
        "--to",
        dest="engine",
        choices=("onnx", "ort-training", "folder", "backbone", *OF_A_LANGUAGE_MODEL),
        default="onnx",
        help="onnx: forward-only, of a Stable Diffusion; ort-training: of a classifier; folder: "
        "diffusers' layout, of a single-file checkpoint; backbone: a frozen vision model for "
        "--task images, as one .onnx file; of a trained language model adapter-gguf: "
        "for llama.cpp, merged: for transformers, merged-gguf: base and adapter in one file, "
        "ollama: a Modelfile with what it names",
    )
    parser.add_argument(
        "--base", type=file_word, help="of an adapter, where it is now; default: where it was"
    )
    parser.add_argument(
        "--config", type=file_word, help="for folder: a diffusers folder of the same kind"
    )
    parser.add_argument(
        "--quant",
        help="none, int8, int8-fast or int4; default: int8; of a merged GGUF f16 or q8_0; "
        "default: f16",
    )
    parser.add_argument("--trainable", help="ort-training: all or head; default: all")
    parser.add_argument(
        "--photos", type=file_word, help="folder of photos to calibrate on; default: noise"
    )
    parser.add_argument("--resolution", type=int, help="pixels; default: the model's own")
    parser.add_argument(
        "--directions",
        action="store_const",
        const=True,
        help="measure what the model's words respond to, which zo may draw its directions from",
    )
    parser.add_argument(
        "--tokens",
        type=file_word,
        metavar="FOLDER",
        help="tokens that this model has learned (.safetensors): measure the directions that they "
        "took, too",
    )
    parser.add_argument("--threads", type=int, help="of the engines that measure it")
    parser.add_argument("--blocks", type=int, help="of a small network; default: all but the last")


def _export(options: argparse.Namespace) -> int:
    if options.engine in OF_A_LANGUAGE_MODEL:
        return _export_language_model(options)
    if options.base is not None:
        raise InputError(f"--base is for --to {', '.join(OF_A_LANGUAGE_MODEL)}; leave it out.")
    if (Path(options.model) / "adapter").is_dir():
        raise InputError(
            f"{options.model} is a run of a language model; say what to write with --to: "
            f"{', '.join(OF_A_LANGUAGE_MODEL)}."
        )
    if (Path(options.model) / "lora").is_dir():
        raise InputError(
            f"{options.model} is a run that trained a LoRA, which other programs load as it is: "
            f"its files are in {Path(options.model) / 'lora'}, and {options.model}/report.html has "
            "the lines to type."
        )
    if options.engine == "folder":
        from edge_train.export.single_file import unpack_checkpoint

        unpack_checkpoint(Path(options.model).expanduser(), options.out, options.config, print)
        return 0
    if options.config is not None:
        raise InputError("--config is for --for folder; leave it out.")
    if options.engine == "backbone":
        from edge_train.tasks.images.export import export_backbone

        for name in ("quant", "photos", "directions", "tokens", "trainable", "threads", "blocks"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} is not for --for backbone; leave it out.")
        export_backbone(options.model, options.out.expanduser(), options.resolution, print)
        return 0
    if options.model.endswith(".safetensors"):
        from edge_train.export.network_graph import export_network

        print(export_network(Path(options.model), options.out, options.quant, options.blocks))
        return 0
    if options.blocks is not None:
        raise InputError("--blocks is for the network.safetensors of a run; leave it out.")
    if options.engine == "ort-training":
        from edge_train.tasks.classify.export import export_training

        for name in ("quant", "photos", "resolution", "directions", "tokens"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} is not for --for ort-training; leave it out.")
        if options.trainable not in (None, "all", "head"):
            raise InputError(f"trainable {options.trainable!r} is not known; use all or head.")
        export_training(
            options.model,
            options.out,
            head_only=options.trainable == "head",
            threads=options.threads,
            say=print,
        )
        return 0
    if options.trainable is not None:
        raise InputError("--trainable is for --for ort-training; leave it out.")
    from edge_train.tasks.personalize.export import export

    export(
        options.model,
        options.out,
        quant=options.quant or "int8",
        photos=options.photos,
        resolution=options.resolution,
        threads=options.threads,
        say=print,
        directions=bool(options.directions),
        tokens=options.tokens,
    )
    return 0


def _export_language_model(options: argparse.Namespace) -> int:
    from edge_train.tasks.language_model.export import export_language_model

    not_its = ("config", "blocks", "trainable", "photos", "resolution", "threads")
    for name in (*not_its, "directions", "tokens"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} is not for --to {options.engine}; leave it out.")
    export_language_model(
        Path(options.model),
        options.out,
        options.engine,
        quant=options.quant,
        base=options.base,
        say=print,
    )
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
    *("plan", "minutes", "import", "watch", "peers", "defaults", "gguf-shapes"),
    *("forward-only", "habit", "noise-budget", "slopes", "likeness", "forwards", "token-prior"),
    *("sd15-lora", "forward-lora", "images"),
)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=BENCHES, metavar="NAME")
    parser.add_argument(
        "--data", type=path_word, help="folder of examples, for those that need one"
    )
    parser.add_argument(
        "--model",
        type=path_word,
        help="encoder of sst2; to export, engine-speed; GGUF of peers; folder of noise-budget, "
        "likeness, forwards, token-prior; backbone of images",
    )
    parser.add_argument(
        "--features", type=path_word, help="folder of feature networks: likeness, forwards"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=path_word, default=Path("runs/bench"))
    parser.add_argument(
        "--samples",
        type=int,
        help="of each data set, tpsgd, images; draws, noise-budget, token-prior; items, forwards",
    )
    parser.add_argument(
        "--limit",
        type=int,
        help="cap: runs; lowrank, sst2, peers, sd15-lora: steps; llama-7b: bytes; likeness: items; "
        "forwards: forwards of a curve; token-prior: rounds of tokens; forward-lora: forwards of a "
        "run",
    )
    parser.add_argument(
        "--python",
        help="interpreter of the device environment: engine-quality, engine-speed, container, "
        "images",
    )


def _bench(options: argparse.Namespace) -> int:
    import inspect
    from importlib import import_module

    from edge_train.bench.ended import ends_what_it_started

    bench = import_module(f"edge_train.bench.{options.name.replace('-', '_')}")
    keys = ("data", "model", "features", "python", "samples", "limit")
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
        add=_add_export,
        run=_export,
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
