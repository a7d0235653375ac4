"""The keys of task retrieve."""

from dataclasses import dataclass
from typing import ClassVar

from edge_train.methods.exact import ClipKeys, DecayKeys
from edge_train.methods.zo import ForwardKeys
from edge_train.recipe import TextKeys, key
from edge_train.tasks.table_keys import TextColumnKeys

TITLE_FLAG, QUERY_FLAG = "--title-column", "--query-column"
_HELP = "its name, or its number from 1 on"


@dataclass(frozen=True, kw_only=True)
class RetrieveRecipe(TextKeys, TextColumnKeys, ForwardKeys, DecayKeys, ClipKeys):
    """Train the projection of late-interaction search over one's own documents."""

    task: ClassVar[str] = "retrieve"

    title_column: str | None = key(
        help=f"column of the titles: {_HELP}", flags=(TITLE_FLAG,), group="data"
    )
    query_column: str | None = key(
        help=f"column of queries, each answered by the text of its row: {_HELP}",
        flags=(QUERY_FLAG,),
        group="data",
    )
    train_on: str = key(
        "auto",
        help="what is trained on: titles of documents, queries that came with them, or both; auto: "
        "both, as far as there are any",
        choices=("auto", "titles", "given"),
        group="data",
    )
    projection: str = key(
        "linear",
        help="kind of the head: one matrix, or a small network of the paper's kinds",
        choices=("linear", "ffn", "glu", "residual", "upscaled"),
    )
    activation: str = key(
        "silu",
        help="nonlinearity inside the head; identity makes all but glu one matrix",
        choices=("silu", "relu", "identity"),
    )
    negatives: int = key(
        1, help="passages a query that BM25 takes for right and that are not", low=0, high=64
    )
    temperature: float = key(8.0, help="what scores are divided by in the loss", low=1e-3, high=1e3)
