"""A command: how many steps a run has taken."""

from pathlib import Path

from edge_train.command import Command


def run(options):
    lines = (options.run / "journal.jsonl").read_text().splitlines()
    print(f"counted {sum('step' in line and 'scalars' in line for line in lines)} steps")
    return 0


COUNT = Command(
    name="count",
    help="steps of a run",
    add=lambda parser: parser.add_argument("run", type=Path),
    run=run,
)
