"""Keys of tasks that read tables: which column holds what."""

from dataclasses import dataclass

from edge_train.recipe import DataKeys, key

_HELP = "its name, or its number from 1 on"


@dataclass(frozen=True, kw_only=True)
class TextColumnKeys(DataKeys):
    """Of tasks that read texts from tables."""

    text_column: str | None = key(
        help=f"column of the texts: {_HELP}",
        flags=("--text-column", "--text_column_name", "--text_column_names"),
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class SourceKeys(DataKeys):
    """Of tasks whose samples may come from several sources."""

    sources: str | None = key(
        help=f"sources that a batch selection tells apart: a column, {_HELP}; or files: each one",
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class LabelColumnKeys(DataKeys):
    """Of tasks that read labels from tables."""

    label_column: str | None = key(
        help=f"column of the labels: {_HELP}",
        flags=("--label-column", "--label_column_name"),
        group="data",
    )
