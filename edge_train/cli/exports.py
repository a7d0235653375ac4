"""`edge-train export`: what it can write, each with the options that it takes."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import InputError
from edge_train.paths import file_word, path_word


@dataclass(frozen=True)
class Kind:
    """One word of `--for`.

    Attributes:
      help: what is written, of what.
      takes: options beside model and file that it reads; others are refused.
      write: writes it.
    """

    help: str
    takes: tuple[str, ...]
    write: Callable[[argparse.Namespace], None]


def _diffusion(options: argparse.Namespace) -> None:
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


def _network(options: argparse.Namespace) -> None:
    from edge_train.export.network_graph import export_network

    quant = options.quant or "int8"
    print(export_network(Path(options.model), options.out, quant, options.blocks))


def _training(options: argparse.Namespace) -> None:
    from edge_train.tasks.classify.export import export_training

    if options.trainable not in (None, "all", "head"):
        raise InputError(f"trainable {options.trainable!r} is not known; use all or head.")
    head_only = options.trainable == "head"
    export_training(
        options.model, options.out, head_only=head_only, threads=options.threads, say=print
    )


def _encoder(options: argparse.Namespace) -> None:
    from edge_train.tasks.retrieve.export import export_encoder

    export_encoder(options.model, options.out, threads=options.threads, say=print)


def _backbone(options: argparse.Namespace) -> None:
    from edge_train.tasks.images.export import export_backbone

    export_backbone(options.model, options.out.expanduser(), options.resolution, print)


def _folder(options: argparse.Namespace) -> None:
    from edge_train.export.single_file import unpack_checkpoint

    unpack_checkpoint(Path(options.model).expanduser(), options.out, options.config, print)


def _language_model(options: argparse.Namespace) -> None:
    from edge_train.tasks.language_model.export import export_language_model

    export_language_model(
        Path(options.model),
        options.out,
        options.kind,
        quant=options.quant,
        base=options.base,
        say=print,
    )


_DIFFUSION = ("quant", "photos", "resolution", "threads", "directions", "tokens")
_OF_A_RUN = ("quant", "base")
KINDS = {
    "onnx": Kind("forward-only, of a Stable Diffusion", _DIFFUSION, _diffusion),
    "ort-training": Kind("of a classifier", ("trainable", "threads"), _training),
    "retrieve": Kind("of a text encoder, for that task", ("threads",), _encoder),
    "backbone": Kind("of a vision model, for task images", ("resolution",), _backbone),
    "folder": Kind("diffusers' layout, of a single-file checkpoint", ("config",), _folder),
    "adapter-gguf": Kind("of a trained language model, for llama.cpp", _OF_A_RUN, _language_model),
    "merged": Kind("of one, for transformers", _OF_A_RUN, _language_model),
    "merged-gguf": Kind("base and adapter of one in one file", _OF_A_RUN, _language_model),
    "ollama": Kind("a Modelfile with what it names", _OF_A_RUN, _language_model),
}
_NETWORK = Kind("of a small network that a run trained", ("quant", "blocks"), _network)
_OPTIONS = (*_DIFFUSION, *("trainable", "config", "base", "blocks"))


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of all kinds."""
    parser.add_argument(
        "model",
        type=file_word,
        metavar="MODEL",
        help="tiny-sd (the embedded one), folder, hub id, network.safetensors of a run, or run of "
        "a language model",
    )
    parser.add_argument(
        "out", type=path_word, metavar="OUT", help="folder (or .onnx or .gguf file) to make"
    )
    parser.add_argument(
        "--for",
        "--to",
        dest="kind",
        choices=tuple(KINDS),
        default="onnx",
        help="; ".join(f"{name}: {kind.help}" for name, kind in KINDS.items()),
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


def run(options: argparse.Namespace) -> int:
    """Write what was asked for.

    Raises:
      InputError: the model is of another kind, or an option is for another.
    """
    model = Path(options.model)
    kind = KINDS[options.kind]
    if (model / "adapter").is_dir() and kind.write is not _language_model:
        own = ", ".join(name for name, one in KINDS.items() if one.write is _language_model)
        raise InputError(
            f"{model} is a run of a language model; say what to write with --to: {own}."
        )
    if (model / "lora").is_dir():
        raise InputError(
            f"{model} is a run that trained a LoRA, which other programs load as it is: its files "
            f"are in {model / 'lora'}, and {model}/report.html has the lines to type."
        )
    if (model / "recipe.toml").is_file() and kind.write is not _language_model:
        raise InputError(_of_run(model))
    if options.kind == "onnx" and model.suffix == ".safetensors":
        kind = _NETWORK
    for name in _OPTIONS:
        if getattr(options, name) is not None and name not in kind.takes:
            raise InputError(_misplaced(name, options.kind))
    kind.write(options)
    return 0


def _of_run(run: Path) -> str:
    """Return what to export where a run was named that is none of a language model's adapter."""
    if (network := run / "network.safetensors").is_file():
        return f"{run} is the folder of a run; export its network: {network}."
    if (model := run / "model").is_dir():
        return f"{run} is the folder of a run; export its model: {model}, with --for."
    return f"{run} is the folder of a run, whose files are used as they are; nothing is exported."


def _misplaced(name: str, kind: str) -> str:
    takers = [other for other, one in KINDS.items() if name in one.takes]
    if not takers or kind in takers:  # of the same word, for the other kind of model
        where = "a Stable Diffusion" if kind in takers else "the network.safetensors of a run"
        return f"--{name} is for {where}; leave it out."
    return f"--{name} is for --for {', '.join(takers)}, not for --for {kind}; leave it out."
