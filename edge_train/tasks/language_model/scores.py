"""What a trained language model is worth: its loss on held-out tokens, and its right answers."""

from typing import Any

import numpy as np

from edge_train.tasks.language_model.kept import Objective
from edge_train.tasks.language_model.labels import judge


def scores_of(
    task: Objective, runtime: Any, sequences: int, judged: int
) -> tuple[dict[str, Any], str]:
    """Return the scores of a model as its parameters are, and a line that says them.

    Args:
      sequences: of the held-out ones, at most, that the loss is of.
      judged: chats, at most, whose answer is chosen among those of the data; 0: no such data.
    """
    held = task.held_out(sequences)
    losses = task.loss(runtime, held, [runtime.parameters])
    loss = float(losses.astype(np.float64).mean())
    count = task.scored(held)
    with np.errstate(over="ignore"):  # the run ends in a sentence about it
        perplexity = float(np.exp(loss))
    metrics: dict[str, Any] = {
        "held_out_loss": loss,
        "perplexity": perplexity,
        "scored_tokens": count,
    }
    if not judged:
        return metrics, f"perplexity {perplexity:.4g} on {count} tokens of the held-out text"
    verdict = judge(runtime, task.held_out(judged))
    metrics |= {"accuracy": verdict.accuracy, "judged_chats": len(verdict.labels)}
    return metrics, (
        f"{100 * verdict.accuracy:.1f} % of {len(verdict.labels)} held-out chats get the right "
        "answer of those in the data"
    )
