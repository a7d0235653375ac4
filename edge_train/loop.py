"""The step, `fit` that repeats it, and `redo` that rebuilds it from a journal. Read this first."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.factored import Gradient, Update, all_finite, scale
from edge_train.arrays.types import Batch, State
from edge_train.errors import MISSED, Missed, NonFinite, TrainingStopped
from edge_train.estimators.alone import Alone
from edge_train.formats.tensor_store import Kind, kinds_of
from edge_train.memory.guard import Guard
from edge_train.optim.lengths import Lengths
from edge_train.optim.sums import Sums, ignored
from edge_train.optim.transforms import for_block
from edge_train.protocols import (
    BatchSelection,
    BlockSchedule,
    Company,
    Estimate,
    Estimator,
    LetsRest,
    Objective,
    Replayable,
    Scheduled,
    Scoring,
    Share,
    Stateful,
    StepRecord,
    Transform,
)
from edge_train.records import checkpoint, journal
from edge_train.records.best import replaces_best
from edge_train.records.checkpoint import Best, Expected, Snapshot
from edge_train.records.journal import Journal, Steps
from edge_train.records.past import Past, chained, origin
from edge_train.rng import Key

ESTIMATOR = "(estimator)"  # where the state of one stands among those of blocks
SELECTION = "(selection)"
_SAVING_SHARE = 0.05  # of the time, at most: a large model is saved less often
_BAD_STEPS = 5  # in a row; then something is wrong that a roll-back does not cure


class WholeBatch:
    """The `BatchSelection` of a run that names none: the task's own batch."""

    def choose(self, task: Objective, runtime: Any, key: Key) -> Batch:
        """Return the batch of a step."""
        return task.batch(key)


class EveryBlock:
    """The `BlockSchedule` of a run that names none."""

    forgets = False

    def trains(self, step: int, name: str) -> bool:
        """Return True."""
        return True


@dataclass
class Loop:
    """A run in progress: data -> loss -> estimator -> transform -> parameters -> guard -> journal.

    Args:
      evaluate_every: steps between losses on the fixed evaluation batch.
      patience: evaluations without progress after which the run has settled; 0 never stops early.
      checkpoint_seconds: time between checkpoints. Together with the journal, which is synced
        every few seconds, they decide how much a power cut can cost, never what the run computes.
      selection: which samples of a step are trained.
      schedule: which blocks are. A forward-only method perturbs a block that rests, too: that adds
        noise to the slopes of the others and no bias.
      clip: length to which a longer gradient of a step is shortened.
      best_margin: by how much a later evaluation may miss the best one (`records.best`).
      observe: called after every step that is in the journal.
      company: who takes the steps together.
    """

    runtime: (
        Any  # the runtime that `estimator` asks for; a method and the engine's record pair them
    )
    task: Objective
    estimator: Estimator[Any]
    transform: Transform
    guard: Guard
    journal: Journal
    checkpoints: Path
    seed: int
    evaluate_every: int
    patience: int
    checkpoint_seconds: float = 10.0
    selection: BatchSelection = field(default_factory=WholeBatch)
    schedule: BlockSchedule = field(default_factory=EveryBlock)
    observe: Callable[[StepRecord, Best], None] = lambda record, best: None
    company: Company = field(default_factory=Alone)
    next_step: int = 0
    evals: list[float] = field(default_factory=list)
    clip: float | None = None
    best_margin: float = 0.0
    stop_requested: bool = False
    steps: int = 0  # most that `fit` takes; an observer may change it, to no less than were taken
    unsettled: int = 0  # evaluations before the run was made longer: they settle nothing

    def __post_init__(self) -> None:
        parameters, transform = self.runtime.parameters, self.transform
        self.rules: dict[str, Transform] = {name: for_block(transform, name) for name in parameters}
        self.state: dict[str, State] = {
            name: self._init(name) if self._has_state(0, name) else {} for name in parameters
        }
        if isinstance(self.estimator, Stateful):
            self.state[ESTIMATOR] = self.estimator.state
        self._scored: int | None = None  # samples that are passed to choose from, in every step
        if isinstance(self.selection, Scoring):
            self.state[SELECTION] = self.selection.begin(self.runtime)
            self._scored = self.selection.forwards
        self.lengths: Lengths | None = None  # of the step in progress
        self._is_replayed = isinstance(self.estimator, Replayable)  # its gradient is no gradient
        self.sums = Sums()  # of a batch that is differentiated in parts; empty between steps
        self._loose: Path | None = None  # a best that no checkpoint refers to yet; the next may go
        self._good: Path | None = None  # the checkpoint that a bad step rolls back to
        self._since: list[StepRecord] = []  # steps taken after it
        self._resting: frozenset[str] | None = None  # blocks; None: the next step takes a turn

    def _init(self, name: str) -> State:
        return self.rules[name].init(self.runtime.parameters.for_transform(name))

    def _has_state(self, step: int, name: str) -> bool:
        return not self.schedule.forgets or self.schedule.trains(step, name)

    def _take_turns(self, step: int) -> None:
        """Let go of the state of blocks that rest from here on, begin that of those that return.

        Nothing is done where the same blocks rest as in the step before.
        """
        resting = frozenset(name for name in self.rules if not self.schedule.trains(step, name))
        if resting == self._resting:
            return
        self._resting = resting
        if isinstance(self.runtime, LetsRest):
            self.runtime.rest(resting)
        if not self.schedule.forgets:
            return
        for name in resting:
            self.state[name] = {}
        for name, rule in self.rules.items():
            if name not in resting and not self.state[name]:
                self.state[name] = self._init(name)
                if isinstance(rule, Scheduled):
                    rule.rest(self.state[name], step)

    @np.errstate(over="ignore", invalid="ignore")  # `NonFinite` says it once, in words
    def step(self, step: int) -> StepRecord:
        """Take one step; every random draw in it is a function of the seed and the step."""
        start = time.perf_counter()
        key = Key(self.seed, step)
        self._take_turns(step)
        batch = self.selection.choose(self.task, self.runtime, key)
        chosen = time.perf_counter() - start
        before, share = self._clipped(batch, key)
        apply = partial(self.apply, key, share=share)
        estimate = self.company.step(self.estimator, self.runtime, self.task, batch, key, apply)
        usage = self.guard.check(step)
        return StepRecord(
            step=step,
            loss=estimate.loss,
            scalars=estimate.scalars,
            forwards=before.forwards + estimate.forwards + (self._scored or 0),
            backwards=before.backwards + estimate.backwards,
            peak_bytes=usage.peak_bytes,
            resident_bytes=usage.resident_bytes,
            seconds=time.perf_counter() - start,
            block_losses=estimate.block_losses,
            gradient_norm=self.lengths.norm if self.lengths else None,
            selection_seconds=None if self._scored is None else chosen,
        )

    def _clipped(self, batch: Batch, key: Key) -> tuple[Estimate, float]:
        """Return by how much the gradient of a step is shortened, and what it took to find out.

        A block's gradient is used and let go before the next one is there, so the length of all of
        them takes a pass of its own, which changes nothing.

        Raises:
          NonFinite: a loss or the length is not finite.
        """
        none = Estimate(0.0, (), 0)
        if self.clip is None:
            self.lengths = None if self._is_replayed else Lengths(factors=False)
            return none, 1.0
        lengths, parameters = Lengths(factors=True), self.runtime.parameters

        def add(name: str, gradient: Gradient | Share) -> None:
            if self.schedule.trains(key.step, name):
                rest = (self.rules[name], self.state[name], parameters.for_transform(name))
                lengths.add_part(name, gradient, *rest)

        before = self.estimator.estimate(self.runtime, self.task, batch, key, add)
        self.lengths = lengths
        if lengths.norm is None:
            raise NonFinite("the length of the gradient is not finite")
        return before, min(1.0, self.clip / lengths.norm) if lengths.norm else 1.0

    def apply(self, key: Key, name: str, gradient: Gradient | Share, share: float = 1.0) -> None:
        """Consume one block's gradient, or a part of it; the estimator calls this block by block.

        The last part of a block's gradient changes it; those before are only added up. The gradient
        of a block that rests is dropped; its schedule goes on.

        Args:
          share: of the gradient that is used; less than 1 where it is clipped.
        """
        if not self.schedule.trains(key.step, name):
            rule = self.rules[name]
            if isinstance(rule, Scheduled) and not (
                self.schedule.forgets or (isinstance(gradient, Share) and not gradient.last)
            ):
                rule.rest(self.state[name])
            return
        if not all_finite(gradient.gradient if isinstance(gradient, Share) else gradient):
            raise NonFinite(f"the gradient of block {name!r} is not finite")
        parameters, rule, state = self.runtime.parameters, self.rules[name], self.state[name]
        param = parameters.for_transform(name)
        add = self.lengths.add if self.lengths and self.clip is None else ignored
        update: Update | None
        if isinstance(gradient, Share):
            if share != 1.0:
                gradient = replace(gradient, share=gradient.share * share)
            update = self.sums.add(name, gradient, rule, state, param, add)
        else:
            add(gradient)
            if share != 1.0:
                scale(gradient, share)
            update = rule.update(gradient, state, param)
        if update is not None:
            parameters.subtract(name, update, key)  # INT8 blocks round by key

    def begin(self, first_eval: float, recipe_sha256: str = "") -> None:
        """Start from the parameters as they are, whose evaluation loss is `first_eval`."""
        self.evals = [first_eval]
        self.history = origin(first_eval, recipe_sha256)
        self.best = self._save_best(0, first_eval)

    def fit(self, steps: int) -> str:
        """Take steps until `steps` are taken, the run has settled or a stop was requested.

        Returns:
          "done", "settled" or "interrupted".

        Raises:
          TrainingStopped: the cap is broken, or too many steps in a row were not finite.
        """
        began = time.monotonic()
        if self._good is None:
            self.save()
        saved = time.monotonic()
        self.steps = steps
        while self.next_step < self.steps and not self.stop_requested:
            if settled(self.evals[self.unsettled :], self.patience):
                break
            after = self.next_step + 1
            evaluated = after % self.evaluate_every == 0 or after == self.steps
            record = self.finite_step(self.next_step, evaluated)
            self.journal.append(journal.step_line(record))
            self.advance(record)
            self.observe(record, self.best)
            wait = max(self.checkpoint_seconds, (saved - began) / _SAVING_SHARE)
            if time.monotonic() - saved > wait:
                began = time.monotonic()
                self.save()
                saved = time.monotonic()
        self.save()
        if self.stop_requested and self.next_step < self.steps:
            return "interrupted"
        return "done" if self.next_step >= self.steps else "settled"

    def follow(self, transform: Transform) -> None:
        """Go on by a rule that differs in its schedule alone; states stay as they are."""
        self.transform = transform
        self.rules = {name: for_block(transform, name) for name in self.rules}

    def finite_step(self, step: int, evaluated: bool) -> StepRecord:
        """Take a step; if anything in it is not finite, leave the run as it was before it.

        With `evaluated`, the loss on the evaluation batch after it is part of it.

        Raises:
          TrainingStopped: the cap is broken, too many steps in a row were not finite, or not even
            the evaluation before the step is.
        """
        start = time.perf_counter()
        try:
            record = self._taken(step, start)
            return self.evaluate(record) if evaluated else record
        except NonFinite as error:
            record = self._roll_back(step, error, start)
        try:
            return self.evaluate(record) if evaluated else record
        except NonFinite as error:
            raise _diverged(step, f"{error} before the step either") from error

    def _taken(self, step: int, start: float) -> StepRecord:
        try:
            return self.step(step)
        except Missed:
            return self._skipped(step, MISSED, start)

    def _skipped(self, step: int, why: str, start: float) -> StepRecord:
        usage = self.guard.check(step)
        seconds = time.perf_counter() - start
        memory = (usage.peak_bytes, usage.resident_bytes)
        return StepRecord(step, None, (), 0, 0, *memory, seconds, skipped=why)

    def _roll_back(self, step: int, error: NonFinite, start: float) -> StepRecord:
        """Go back to where a step began that was not finite; return the record of it."""
        assert self._good is not None  # `fit` begins by saving
        self.restore(checkpoint.load(self._good), self._since)
        bad = 1
        for record in reversed(self._since):
            if not record.skipped or record.skipped == MISSED or bad == _BAD_STEPS:
                break
            bad += 1
        if bad >= _BAD_STEPS:
            raise _diverged(step, f"{error}, {bad} steps in a row") from error
        return self._skipped(step, str(error), start)

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self, record: StepRecord) -> StepRecord:
        """Return `record` with the loss on the fixed evaluation batch and what it cost.

        Without that loss where a fleet took it without this run.

        Raises:
          NonFinite: that loss is not finite.
        """
        start, forwards = time.perf_counter(), record.forwards

        def measured() -> float:
            nonlocal forwards
            losses = self.task.loss(self.runtime, self.task.evaluation(), [self.runtime.parameters])
            forwards += losses.size
            return float(losses.astype(np.float64).mean())

        try:
            mean = self.company.evaluation(record.step, measured)
        except Missed:
            return record
        if not np.isfinite(mean):
            raise NonFinite("the evaluation loss is not finite")
        return replace(
            record,
            eval=mean,
            forwards=forwards,
            seconds=record.seconds + time.perf_counter() - start,
        )

    def advance(self, record: StepRecord) -> None:
        """Count a step that was taken, and remember the best parameters."""
        self._since.append(record)
        self.next_step = record.step + 1
        self.history = chained(self.history, record)
        if record.eval is not None:
            self.evals.append(record.eval)
            if replaces_best(record.eval, self.best.loss, self.evals[0], self.best_margin):
                self.best = self._save_best(self.next_step, record.eval)

    def redo(self, record: StepRecord) -> None:
        """Rebuild a journaled step: from its scalars without the model, else by taking it again."""
        self.company.redo(record, partial(self._redo, record))
        self.advance(record)

    def _redo(self, record: StepRecord) -> None:
        if record.skipped is None:
            if isinstance(self.estimator, Replayable) and self._scored is None:
                key = Key(self.seed, record.step)
                parameters = self.runtime.parameters
                apply = partial(self.apply, key)
                self._take_turns(record.step)
                self.estimator.replay(record.scalars, parameters, key, apply)
            else:
                self.step(record.step)

    def catch_up(self, records: Collection[StepRecord] | Steps) -> list[str]:
        """Go to the end of a journal: its newest whole checkpoint, then redo what came after.

        Returns:
          What the user should know of checkpoints that could not be used, a line each.
        """
        past = Past(self.history, self.evals[0], records, self.best_margin)
        expected = Expected(past, kinds_of(self.runtime.parameters.stored()), self._kinds)
        snapshot, complaints = checkpoint.load_newest(self.checkpoints, len(records), expected)
        if snapshot is None:
            self.restore(self.snapshot(), records)
        else:
            before = islice(records, snapshot.step)
            self.evals += [r.eval for r in before if r.eval is not None]
            self.restore(snapshot, islice(records, snapshot.step, None))
        return [f"{line} Using an older checkpoint and the journal." for line in complaints]

    def restore(self, snapshot: Snapshot, records: Iterable[StepRecord]) -> None:
        """Go back to a snapshot and redo the journaled steps after it."""
        self.sums.held.clear()  # what a step that was not finite left
        self._resting = None  # a snapshot may be of another turn
        self.runtime.parameters.load(snapshot.parameters)
        for name in self.state:
            stored = snapshot.state.get(name, {})
            if self.schedule.forgets and name in self.rules and stored is not self.state[name]:
                self.state[name] = self._init(name) if stored else {}
            for part, value in stored.items():
                np.copyto(self.state[name][part], value)
        self.best, self.history = snapshot.best, snapshot.history
        self.next_step = snapshot.step
        records = list(records)
        self.evals = self.evals[: len(self.evals) - sum(r.eval is not None for r in self._since)]
        self._since = []
        for record in records:
            self.redo(record)

    def _kinds(self, step: int) -> dict[str, Kind]:
        """Return types and shapes of the state that a checkpoint of so many steps holds."""
        found: dict[str, Kind] = {}
        for name, state in self.state.items():
            if name not in self.rules or self._has_state(max(step - 1, 0), name):
                found |= checkpoint.kinds_of_state({name: state or self._init(name)})
        return found

    def snapshot(self) -> Snapshot:
        """Return everything the run needs to go on from here: the live arrays, not copies."""
        blocks = self.runtime.parameters.stored()
        return Snapshot(self.next_step, blocks, self.state, self.best, self.history)

    def save(self) -> None:
        """Write a checkpoint; from here on it is the one that a bad step rolls back to."""
        self._good = checkpoint.save(self.checkpoints, self.snapshot())
        self._loose = None
        self._since = []

    def _save_best(self, step: int, loss: float) -> Best:
        blocks = self.runtime.parameters.stored()
        best = checkpoint.save_best(self.checkpoints, step, loss, blocks, self.history)
        if self._loose is not None and self._loose != best.path:
            self._loose.unlink(missing_ok=True)
        self._loose = best.path
        return best


def _diverged(step: int, why: str) -> TrainingStopped:
    return TrainingStopped(
        f"step {step}: {why}; stopped with the parameters of the last good step. Try a smaller "
        "--learning-rate or --quant none."
    )


def settled(losses: Sequence[float], patience: int, tolerance: float = 0.02) -> bool:
    """Return whether the last `patience` evaluations brought nothing worth their time.

    Worth it is a new best that adds at least `tolerance` of all improvement so far. The evaluation
    batch never changes (same photos, latents, noise, timesteps), so the curve is smooth enough for
    this; the training loss is not.

    Args:
      losses: every evaluation in order, the one before training first.
      patience: evaluations to wait; 0 never stops.

    >>> settled([1.0, 0.5, 0.499, 0.5, 0.498], patience=3)
    True
    >>> settled([1.0, 0.8, 0.6, 0.4, 0.2], patience=3)
    False
    """
    if patience == 0 or len(losses) <= patience + 1:
        return False
    before, after = min(losses[:-patience]), min(losses[-patience:])
    return before - after < tolerance * (losses[0] - min(before, after))
