"""Pages of what is on disk: formats, from the docstrings that specify them, and `report.json`."""

import ast
from pathlib import Path

from edge_train.records.summary_keys import KEYS

_FORMATS = Path(__file__).parents[1] / "formats"


def artifact_page() -> str:
    """Return the specification of an artifact."""
    command = "edge-train export MODEL OUT --quant int8"
    return _specification("The artifact", command, _FORMATS / "artifact.py")


def training_artifact_page() -> str:
    """Return the specification of a training artifact."""
    command = "edge-train export CLASSIFIER OUT --for ort-training"
    return _specification("The training artifact", command, _FORMATS / "training_artifact.py")


def _specification(title: str, command: str, module: Path) -> str:
    """Return the docstring of a module as a page, read without importing it."""
    text = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    return f"# {title}\n\n    {command}\n\n{text}\n"


def report_page() -> str:
    """Return the keys of `report.json`."""
    parts = [
        "# report.json\n",
        "    edge-train report RUN\n",
        "writes it again from the journal. Bytes are integers, times are seconds. Every key is "
        "there for every task, unless it says otherwise; what is not known (yet) is null.\n",
        "| key | value | what it is |",
        "|---|---|---|",
    ]
    parts += [f"| `{name}` | {key.kind} | {key.says} |" for name, key in KEYS.items()]
    return "\n".join(parts) + "\n"
