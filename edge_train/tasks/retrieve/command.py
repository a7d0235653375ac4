"""`edge-train search`, which asks the documents of a run, and `edge-train audit` of it."""

import argparse
import sys

from edge_train.command import Command
from edge_train.paths import path_word
from edge_train.registry import load
from edge_train.tasks.audits import audit_command


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument(
        "query", nargs="*", metavar="QUERY", help="in quotes; without one, a query a line is read"
    )
    parser.add_argument("--count", type=int, default=5, help="documents of a query; default: 5")
    parser.add_argument("--threads", type=int, help="of the encoder")
    parser.add_argument(
        "--json", action="store_true", help="a JSON object a query on standard output"
    )


def _run(options: argparse.Namespace) -> int:
    load("edge_train.tasks.retrieve.search:search")(
        options.run,
        options.query or (line.rstrip("\n") for line in sys.stdin),
        sys.stdout,
        count=options.count,
        threads=options.threads,
        as_json=options.json,
        several=len(options.query) != 1,
    )
    return 0


SEARCH = Command(name="search", help="ask the documents of a trained search", add=_add, run=_run)


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queries", type=int, default=20, help="own judged queries that are tried; default: 20"
    )
    parser.add_argument(
        "--forwards",
        type=int,
        default=200,
        help="texts that the encoder may read for each query; default: 200",
    )
    parser.add_argument(
        "--count", type=int, default=10, help="first documents that count as risen; default: 10"
    )


AUDIT = audit_command(
    "retrieve",
    "how easily a foreign document rises in a search",
    _add_audit,
    "edge_train.tasks.retrieve.audit.audit:audit",
)
