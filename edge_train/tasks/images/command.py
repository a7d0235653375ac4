"""`edge-train infer`, the class of a picture, and `edge-train audit`, how robust it is."""

import argparse

from edge_train.command import Command
from edge_train.paths import file_word, path_word
from edge_train.registry import load
from edge_train.tasks.audits import audit_command


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument(
        "pictures", type=path_word, nargs="+", metavar="PICTURE", help="files, or folders of them"
    )
    parser.add_argument(
        "--model", type=file_word, help="the backbone, where it is now; default: where it was"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def _run(options: argparse.Namespace) -> int:
    infer = load("edge_train.tasks.images.answering:infer")
    for line in infer(options.run, options.pictures, model=options.model, as_json=options.json):
        print(line, flush=True)
    return 0


INFER = Command(
    name="infer",
    help="the class of a picture, or that it is unknown",
    add=_add,
    run=_run,
)


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forwards",
        type=int,
        default=2000,
        help="forward passes of the backbone that a patch is fitted with; default: 2000",
    )
    parser.add_argument(
        "--harden",
        action="store_true",
        help="also train the head on patched views, in RUN-hardened, and audit that",
    )


AUDIT = audit_command(
    "images",
    "accuracy of a classifier under a patch on its own photos",
    _add_audit,
    "edge_train.tasks.images.audit.audit:audit",
)
