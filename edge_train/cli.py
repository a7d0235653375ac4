"""The command line: parses words, prints results; no logic."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge_train import __version__
from edge_train.errors import INTERRUPTED, NOT_STARTED, EdgeTrainError, OutOfMemory
from edge_train.memory.link import Link
from edge_train.units import LEAST, parse_bytes

if TYPE_CHECKING:
    from edge_train.recipe import Recipe

# Packages that only some installations have; what needs one says so in a sentence.
_OF_THE_DESK = {
    "accelerate",
    "diffusers",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "optimum",
    "peft",
    "torch",
    "transformers",
}

# recipe key -> our spelling, then the spellings of diffusers' textual_inversion and kohya scripts
_OPTIONS: tuple[tuple[str, tuple[str, ...], type, str], ...] = (
    (
        "model",
        ("--model", "--pretrained_model_name_or_path"),
        str,
        "embedded, folder, artifact, hub id",
    ),
    ("token", ("--token", "--placeholder_token", "--token_string"), str, "the new word, <my-dog>"),
    ("class_word", ("--class", "--initializer_token", "--init_word"), str, "what it is: dog"),
    ("task", ("--task",), str, "personalize, classify, language-model or network"),
    ("data", ("--data",), str, "a text; or labeled examples: texts, arrays, tables, pictures"),
    ("length", ("--length",), int, "tokens of a text"),
    ("trainable", ("--trainable",), str, "of a classifier: all, head, norms or lora"),
    ("learn", ("--learn", "--learnable_property"), str, "object or style"),
    ("vectors", ("--vectors", "--num_vectors", "--num_vectors_per_token"), int, "per token"),
    ("mem", ("--mem",), str, "most memory the run may hold, such as 8GB"),
    ("host_mem", ("--host-mem",), str, "the same for the host, with a discrete GPU"),
    (
        "method",
        ("--method",),
        str,
        "auto, zo, backprop, adamw8bit, galore, q-galore, apollo, ...; of networks tpsgd, ...",
    ),
    ("preset", ("--preset",), str, "default, or a paper's settings: zoodip, for texts mezo"),
    ("runtime", ("--runtime",), str, "auto, torch, onnx, ort-training or numpy"),
    (
        "device",
        ("--device",),
        str,
        "auto or cpu, cuda; for artifacts also tensorrt, coreml, qnn, directml",
    ),
    ("quant", ("--quant",), str, "weights: none, int8 or int4; of an artifact: as exported"),
    ("dtype", ("--dtype",), str, "auto, float32, bfloat16 or float16"),
    ("steps", ("--steps", "--max_train_steps"), int, "at most this many"),
    ("learning_rate", ("--learning_rate", "--lr"), float, "absolute, per coordinate"),
    ("weight_decay", ("--weight-decay", "--adam_weight_decay"), float, "of matrices, decoupled"),
    ("rank", ("--rank",), int, "of a low-rank method or adapter: vectors of a basis"),
    ("refresh_every", ("--refresh-every", "--update_proj_gap"), int, "steps between two bases"),
    ("scale", ("--scale",), float, "of a low-rank update"),
    (
        "basis",
        ("--basis",),
        str,
        "of galore, q-galore: svd, dct, columns; auto measures",
    ),
    (
        "difference_rank",
        ("--difference-rank",),
        int,
        "also write what training changed as adapters of this rank",
    ),
    ("schedule", ("--schedule", "--lr_scheduler"), str, "cosine or constant"),
    ("samples", ("--samples", "--train_batch_size"), int, "photos, texts or sequences per step"),
    ("micro_batch", ("--micro-batch",), int, "of these, so many are differentiated at once"),
    ("queries", ("--queries", "--n"), int, "perturbed evaluations per step"),
    ("sides", ("--sides",), int, "1 or 2 evaluations per direction"),
    ("epsilon", ("--epsilon", "--zo_eps"), float, "perturbation radius; else picked by a check"),
    ("batch_limit", ("--batch-limit",), int, "most samples in one call of the model"),
    ("resolution", ("--resolution",), int, "pixels"),
    ("seed", ("--seed",), int, "of every random draw"),
    ("threads", ("--threads",), int, "of the engine"),
    ("network", ("--network",), str, "of task network, such as 'mlp 500 500'"),
    ("patience", ("--patience",), int, "evaluations without progress before it stops; 0 never"),
    ("evaluate_every", ("--evaluate-every",), int, "steps"),
    ("preview_every", ("--preview-every", "--validation_steps"), int, "steps; 0: before and after"),
    ("preview_steps", ("--preview-steps",), int, "denoiser steps of a preview"),
    ("guidance", ("--guidance",), float, "of previews"),
    ("out", ("--out", "--output_dir"), str, "run folder"),
)
# recipe key -> how the command line spells it
_FLAGS = {
    **{key: flags[0] for key, flags, *_ in _OPTIONS},
    "prompts": "--prompt",
    "previews": "--no-previews",
    "flips": "--no-flips",
    "photos": "a folder of photos",
}
_RECORDED = (
    "--resume goes on with the run as it was recorded, so {name} cannot be given; leave it out. "
    "Only --mem and --host-mem can change."
)
# what diffusers' scripts also take and we always do, or cannot do
_ALWAYS = ("--gradient_checkpointing", "--center_crop", "--cache_latents")
_PRECISION = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
_REFUSED = {
    "--scale_lr": "give the scaled --learning_rate itself",
    "--report_to": "the run folder has journal.jsonl and report.html; nothing is sent anywhere",
    "--push_to_hub": "nothing is uploaded",
    "--gradient_accumulation_steps": "use --samples, and --micro-batch for a part of them",
    "--save_steps": "checkpoints are written every few seconds",
    "--checkpointing_steps": "checkpoints are written every few seconds",
    "--num_train_epochs": "use --steps",
    "--repeats": "use --steps",
    "--lr_warmup_steps": "there is no warm-up",
    "--enable_xformers_memory_efficient_attention": "torch's own attention is used",
    "--use_8bit_adam": "the optimizer state of a token is a few kilobytes",
    "--allow_tf32": "torch's own default is used",
}

BENCHES = (
    *("personalize", "sd15", "engine", "engine-quality", "streaming", "cap"),
    *("ort-training", "lowrank", "llama-7b", "sst2", "tpsgd"),
)


class _Parser(argparse.ArgumentParser):
    """argparse, with refused flags explained instead of `unrecognized arguments`."""

    def error(self, message: str) -> NoReturn:
        for flag, instead in _REFUSED.items():
            if "unrecognized" in message and flag in message.split():
                message = f"{flag} cannot be honored: {instead}."
        if message == "argument --mem: expected one argument":
            message = f"--mem needs a size after it, such as 8GB. The least that works is {LEAST}."
        self.exit(NOT_STARTED, f"edge-train: {message}\nSee `{self.prog} --help`.\n")


def main(arguments: Sequence[str], link: Link | None = None) -> int:
    """Run one command in this process; return its exit status (see CONTRACT: 0, 2, 3 or 130).

    What was typed comes through `entry.py`, which starts a run that has a cap in a worker.

    Args:
      arguments: words.
      link: to the supervisor, in a worker.

    Raises:
      OutOfMemory: in a worker; its supervisor decides what comes next.
    """
    options = _parser().parse_args(arguments)
    options.link = link
    try:
        status: int = options.command(options)
    except OutOfMemory as error:
        if link is not None:
            raise
        print(f"edge-train: {error}", file=sys.stderr)
        return error.exit_status
    except EdgeTrainError as error:
        print(f"edge-train: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_DESK:
            raise
        print(
            f"edge-train: this needs {error.name}, which is not installed; `pip install "
            "edge-train[desk]`.",
            file=sys.stderr,
        )
        return NOT_STARTED
    except KeyboardInterrupt:
        print("edge-train: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_STARTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edge-train",
        description="Train on the device, inside a byte budget you name.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edge-train {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="train: a token from photos, a classifier, a language model, a network",
        allow_abbrev=False,
    )
    _add_run_options(run)
    run.add_argument(
        "--resume", "--resume_from_checkpoint", type=Path, metavar="RUN", help="go on with a run"
    )
    run.set_defaults(command=_train)

    plan = commands.add_parser(
        "plan", help="what a run would hold, line by line; trains nothing", allow_abbrev=False
    )
    _add_run_options(plan)
    plan.set_defaults(command=_plan, resume=None)

    export = commands.add_parser(
        "export", help="write an artifact for the inference engine", allow_abbrev=False
    )
    export.add_argument(
        "model", metavar="MODEL", help="embedded, folder, hub id, or network.safetensors of a run"
    )
    export.add_argument("out", type=Path, metavar="OUT", help="folder (or .onnx file) to make")
    export.add_argument(
        "--for",
        dest="engine",
        choices=("onnx", "ort-training"),
        default="onnx",
        help="onnx: forward-only, of a Stable Diffusion; ort-training: of a classifier",
    )
    export.add_argument("--quant", help="none, int8, int8-fast or int4; default: int8")
    export.add_argument("--trainable", help="ort-training: all or head; default: all")
    export.add_argument("--photos", help="folder of photos to calibrate on; default: noise")
    export.add_argument("--resolution", type=int, help="pixels; default: the model's own")
    export.add_argument("--threads", type=int, help="of the engines that measure it")
    export.add_argument("--blocks", type=int, help="of a small network; default: all but the last")
    export.set_defaults(command=_export)

    generate = commands.add_parser(
        "generate", help="pictures with a learned token", allow_abbrev=False
    )
    generate.add_argument("run", type=Path, metavar="RUN")
    generate.add_argument("--prompt", action="append", metavar="PROMPT", help="may be repeated")
    generate.add_argument("--count", type=int, default=4, help="pictures per prompt")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--steps", type=int, default=30, help="denoiser steps")
    generate.add_argument("--guidance", type=float)
    generate.add_argument("--out", type=Path, help="folder; default: RUN/generated")
    generate.set_defaults(command=_generate)

    report = commands.add_parser("report", help="rebuild report.json and report.html")
    report.add_argument("run", type=Path, metavar="RUN")
    report.set_defaults(command=_report)

    bench = commands.add_parser("bench", help="the benchmarks behind every published number")
    bench.add_argument("name", choices=BENCHES, metavar="NAME")
    bench.add_argument("--data", type=Path, help="folder of examples, for those that need one")
    bench.add_argument("--model", type=Path, help="folder of an encoder, for sst2")
    bench.add_argument("--seeds", type=int, default=3)
    bench.add_argument("--out", type=Path, default=Path("runs/bench"))
    bench.add_argument("--samples", type=int, help="of each data set; for tpsgd")
    bench.add_argument("--limit", type=int, help="cap: runs; lowrank, sst2: steps; llama-7b: bytes")
    bench.add_argument(
        "--python", help="interpreter of the device environment, for engine-quality; default: ours"
    )
    bench.set_defaults(command=_bench)

    doctor = commands.add_parser("doctor", help="engines, devices and cap mechanisms found here")
    doctor.set_defaults(command=lambda options: _doctor())
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    """Add what defines a run, and how it talks."""
    run.add_argument("photos", nargs="?", help="folder of 1-50 photos; default: five examples")
    run.add_argument("--train_data_dir", dest="photos_alias", help=argparse.SUPPRESS)
    run.add_argument("--recipe", type=Path, metavar="FILE.toml", help="a run as a file")
    for key, (ours, *aliases), kind, text in _OPTIONS:
        run.add_argument(ours, dest=key, type=kind, metavar=key.upper(), help=text)
        for alias in aliases:
            run.add_argument(alias, dest=key, type=kind, help=argparse.SUPPRESS)
    run.add_argument(
        "--prompt",
        "--validation_prompt",
        "--sample_prompts",
        dest="prompts",
        action="append",
        metavar="PROMPT",
        help="of a preview; {} or the token marks the thing; may be repeated",
    )
    run.add_argument("--lean", action="store_true", default=None, help="less memory, slower")
    run.add_argument("--no-previews", dest="previews", action="store_false", default=None)
    run.add_argument("--no-flips", dest="flips", action="store_false", default=None)
    run.add_argument("--mixed_precision", choices=_PRECISION, help=argparse.SUPPRESS)
    for flag in _ALWAYS:
        run.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    run.add_argument("--json", action="store_true", help="for programs, on stdout; no progress bar")


def _train(options: argparse.Namespace) -> int:
    from edge_train.errors import InputError
    from edge_train.run import session
    from edge_train.run.observer import Bar, JsonEvents

    observer = JsonEvents() if options.json else Bar()
    if options.resume is None:
        return session.run(_recipe(options), observer, options.link)
    said = _given(options)
    caps = {"cap_bytes": said.pop("mem", None), "host_cap_bytes": said.pop("host_mem", None)}
    if options.recipe is not None:
        raise InputError(_RECORDED.format(name="--recipe"))
    for key in said:
        raise InputError(_RECORDED.format(name=_FLAGS.get(key, f"--{key}")))
    overrides = {key: parse_bytes(size) for key, size in caps.items() if size is not None}
    return session.resume(options.resume, overrides, observer, options.link)


def _plan(options: argparse.Namespace) -> int:
    from edge_train.run.survey import survey

    found = survey(_recipe(options))
    print(found.json() if options.json else found.text())
    if found.fits:
        return 0
    print(f"edge-train: {found.refusal()}", file=sys.stderr)
    return NOT_STARTED


def _recipe(options: argparse.Namespace) -> "Recipe":
    """Return the recipe that a file and the words of the command line make."""
    from dataclasses import replace

    from edge_train import recipe as recipes

    base = recipes.read(options.recipe) if options.recipe else recipes.Recipe()
    return replace(base, **_overrides(options, base.task))


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line says of a recipe, by key."""
    given = {key: getattr(options, key) for key, *_ in _OPTIONS}
    given |= {
        "prompts": options.prompts,
        "flips": options.flips,
        "previews": options.previews,
        "lean": options.lean,
        "photos": options.photos or options.photos_alias,
    }
    if options.mixed_precision:
        given["dtype"] = _PRECISION[options.mixed_precision]
    return {key: value for key, value in given.items() if value is not None}


def _overrides(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Return what the command line says of a recipe of a task, checked, by name of its field."""
    from edge_train import recipe as recipes

    given = _given(options)
    if not given:
        return {}
    parsed = recipes.from_mapping({"task": task, **given}, "command line")
    renamed = {"mem": "cap_bytes", "host_mem": "host_cap_bytes"}
    names = [renamed.get(key, key) for key in given]
    return {name: getattr(parsed, name) for name in names}


def _export(options: argparse.Namespace) -> int:
    from edge_train.errors import InputError

    if options.model.endswith(".safetensors"):
        from edge_train.export.network_graph import export_network

        print(export_network(Path(options.model), options.out, options.quant, options.blocks))
        return 0
    if options.blocks is not None:
        raise InputError("--blocks is for the network.safetensors of a run; leave it out.")
    if options.engine == "ort-training":
        from edge_train.tasks.classify.export import export_training

        for name in ("quant", "photos", "resolution"):
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
    )
    return 0


def _generate(options: argparse.Namespace) -> int:
    from edge_train.tasks.personalize.generate import generate

    for path in generate(
        options.run,
        options.prompt,
        count=options.count,
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
        out=options.out,
    ):
        print(path)
    return 0


def _report(options: argparse.Namespace) -> int:
    from edge_train.run.ending import write_report

    print(write_report(options.run))
    return 0


def _bench(options: argparse.Namespace) -> int:
    import inspect
    from importlib import import_module

    from edge_train.errors import InputError

    bench = import_module(f"edge_train.bench.{options.name.replace('-', '_')}")
    keys = ("data", "model", "python", "samples", "limit")
    own = {key: getattr(options, key) for key in keys}
    given = {name: value for name, value in own.items() if value is not None}
    takes = inspect.signature(bench.main).parameters
    for name in given.keys() - takes.keys():
        raise InputError(f"bench {options.name} does not take --{name}; leave it out.")
    print(bench.main(options.out, options.seeds, **given))
    return 0


def _doctor() -> int:
    from edge_train.doctor import examine

    print(examine())
    return 0
