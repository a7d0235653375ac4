"""What the keys of `report.json` mean; bytes are integers, times are seconds."""

from typing import NamedTuple


class SummaryKey(NamedTuple):
    """A key of `report.json`.

    Attributes:
      kind: of its value, for people. Where a value is not known (yet) it is null.
      says: what it is.
    """

    kind: str
    says: str


KEYS = {
    "status": SummaryKey("string", "done, interrupted, stopped, running or over cap"),
    "task": SummaryKey("string", "what was trained: the name of the task"),
    "method": SummaryKey("string", "how the gradient was computed and used"),
    "runtime": SummaryKey("string", "the engine"),
    "device": SummaryKey("string", "where the engine computed"),
    "dtype": SummaryKey("string", "type of float weights and activations"),
    "quant": SummaryKey("string", "quantisation of the weights"),
    "model_sha256": SummaryKey("string", "hash of the model's weights"),
    "seed": SummaryKey("integer", "seed of every random draw"),
    "threads": SummaryKey("integer", "threads of the engine"),
    "cap_bytes": SummaryKey("bytes", "the most memory the run may hold: `--mem`"),
    "time_seconds": SummaryKey("seconds", "the most time that the run may take: `--time`"),
    "ended_by_time": SummaryKey("boolean", "whether it ended because that was over"),
    "wall": SummaryKey("string", "which limits of the operating system stood behind the cap"),
    "plan_peak_bytes": SummaryKey("bytes", "peak that was planned before the first step"),
    "predicted_seconds": SummaryKey("seconds", "time that the run said it would take"),
    "measured_peak_bytes": SummaryKey("bytes", "peak that was measured, of the process tree"),
    "measured_anon_bytes": SummaryKey("bytes", "the part of it that is not mapped from a file"),
    "weights_bytes": SummaryKey("bytes", "weights that `--lean` left in their file"),
    "weights_reread_bytes": SummaryKey("bytes", "how much of them was read again"),
    "weights_order": SummaryKey("string", "in which order they were read"),
    "weights_passes": SummaryKey("integer", "passes over the file of weights"),
    "weights_evaluations": SummaryKey("integer", "forward passes of one sample that those served"),
    "joules": SummaryKey("joules", "energy of all processes that were not killed, and of the rest"),
    "joules_from": SummaryKey("string", "the counter that said so"),
    "steps": SummaryKey("integer", "steps that were taken"),
    "forwards": SummaryKey("integer", "forward passes of one sample, evaluations included"),
    "backwards": SummaryKey("integer", "backward passes of one sample"),
    "selection_seconds": SummaryKey("seconds", "time in which batches were chosen; of a selection"),
    "seconds_total": SummaryKey("seconds", "time of all processes of the run"),
    "seconds_per_step": SummaryKey("seconds", "median time of a step"),
    "resumed": SummaryKey("integer", "how often the run was resumed"),
    "eval": SummaryKey(
        "object", "loss on the fixed evaluation batch: `first`, `best`, `best_step`, `last`"
    ),
    "metrics": SummaryKey("object", "scores of the task, such as accuracy or perplexity"),
    "versions": SummaryKey("object", "versions of the packages that took part"),
    "outputs": SummaryKey("object", "results by their kind: paths in the run folder"),
    "notices": SummaryKey("list", "what was cut, left out or guessed, a sentence each"),
    "labels": SummaryKey("list", "names of the classes; only of tasks that have classes"),
}
