"""How well a text classifier answers: its scores, a line that says them, its worst mistakes."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from edge_train.arrays.types import Array
from edge_train.tasks.classify.objective import TokenizedTexts
from edge_train.tasks.classify.targets import class_scores, number_scores
from edge_train.tasks.mistakes import furthest_off, record, worst

_MOST_SHOWN = 400  # characters of a text in the report


def scored(
    part: str,
    texts: TokenizedTexts,
    logits: Array,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    *,
    outputs: int | None,
) -> tuple[dict[str, Any], str]:
    """Return scores for a report and a line that says them.

    Args:
      part: name of the texts: `test` or `dev`.
      logits: (texts, outputs).
      labels: of the data, in the order of the outputs.
      outputs: of the model; None: labels are numbers.
    """
    found: dict[str, Any] = {"scored_on": part, "scored_examples": len(texts)}

    def shown(row: int) -> str:
        """Return the beginning of a text as the model read it."""
        ids = texts.ids[row, : texts.counts[row]].tolist()
        return str(tokenizer.decode(ids))[:_MOST_SHOWN]

    if outputs is None:
        given = logits[:, 0]
        found |= number_scores(texts.labels, given)
        missed = furthest_off(texts.labels, given)
        found["mistakes"] = [{**miss, "text": shown(miss["row"])} for miss in missed]
        return found, (
            f"predicted and given numbers of {len(texts)} {part} examples correlate by "
            f"{found['pearson']:.3f} (Pearson), mean squared error "
            f"{found['mean_squared_error']:.4g}"
        )
    found |= class_scores(texts.labels, logits, outputs)
    wrong = worst(texts.labels, logits)
    found["mistakes"] = [record(one, labels, text=shown(one.row)) for one in wrong]
    share = 100 * found["accuracy"]
    return found, f"{share:.1f} % of {len(texts)} {part} examples are classified correctly"
