"""How long a run that begins will take: by its first evaluation, then by its first steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_train.protocols import StepRecord
from edge_train.run.pace import Prediction

# Steps that tell the pace of all: as many as take this long, or this share of them; never fewer
# than three, the first of which does not count, since it reads code and makes buffers.
_ENOUGH_SECONDS, _ENOUGH_SHARE, _LEAST = 2.0, 0.1, 3
_CLEARLY = 1.2  # another prediction differs by this factor at least; else the first one stands


@dataclass
class Expected:
    """What a new run expects, in seconds from its beginning to its end.

    Attributes:
      work: of the whole run, as `work_of` counted it.
      spent: until the first step.
      evaluation_seconds: that the evaluation in them took.
      seconds: what was said at first; before: what was spent until then.
    """

    work: Mapping[str, float]
    spent: float
    evaluation_seconds: float
    seconds: float = field(init=False)
    before: float = field(init=False)
    _settled: bool = False
    _times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        counted = Prediction(**self.work)
        self.before = self.spent
        factor = self.evaluation_seconds / counted.evaluation
        self.seconds = self.spent + counted.rest * factor

    def corrected(self, record: StepRecord) -> float | None:
        """Return what the first steps say, once, where it clearly differs from what was said.

        Args:
          record: of the step that was taken.
        """
        if self._settled:
            return None
        counted = Prediction(**self.work)
        self.spent += record.seconds
        if record.eval is None and record.step:
            self._times.append(record.seconds)
        taken = record.step + 1
        enough = sum(self._times) >= _ENOUGH_SECONDS or taken >= _ENOUGH_SHARE * counted.steps
        if taken < _LEAST or not self._times or not enough:
            return None
        self._settled = True
        step = sum(self._times) / len(self._times)
        left = 1 - taken / counted.steps
        found = self.spent + step * (counted.steps - taken)
        found += left * (counted.evaluations - 1) * self.evaluation_seconds
        # pictures and scores are passes in large calls, as an evaluation is and a step is not
        found += counted.after * self.evaluation_seconds / counted.evaluation
        if max(found, self.seconds) < _CLEARLY * min(found, self.seconds):
            return None
        return found
