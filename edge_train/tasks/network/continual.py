"""One task after the other: what an earlier run learned, as the start of the next."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats import learned_tasks, network_file
from edge_train.formats import network as networks
from edge_train.formats.learned_tasks import LearnedTasks
from edge_train.formats.network_file import SavedNetwork
from edge_train.optim.input_space import orthonormal
from edge_train.optim.protected import Protected, Space
from edge_train.protocols import Transform
from edge_train.records.history import read_records
from edge_train.tasks.begun import is_run, output_of
from edge_train.tasks.network import TASK
from edge_train.tasks.network.datasets import Dataset, Samples
from edge_train.units import shown

_RENAMED = 0.8  # share of answers that one exchange of names would put right
_WRONG = 0.5  # share of right answers below which names are looked at


@dataclass(frozen=True)
class Before:
    """A run that was finished: its network and its tasks.

    Attributes:
      folder: of the run.
      file: of its network, or of what it trained behind a backbone.
      network: in that file.
      learned: its tasks; none of a run that kept none.
    """

    folder: Path
    file: Path
    network: SavedNetwork
    learned: LearnedTasks

    @property
    def files(self) -> tuple[Path, ...]:
        """What a run reads that goes on from this one."""
        tasks = self.folder / learned_tasks.FILE
        return (self.file, tasks) if tasks.is_file() else (self.file,)

    def followed_by(self, data: Dataset) -> "Next":
        """Return the next task: its data as this network reads and answers it.

        Raises:
          InputError: some of its classes are known and some are not.
        """
        present = np.unique(data.train.labels)
        names = tuple(data.class_names[one] for one in present)
        known = [name for name in names if name in self._known]
        if 0 < len(known) < len(names):
            new = next(name for name in names if name not in known)
            raise InputError(
                f"--next {self.folder}: class {shown(known[0])} of the data was learned before and "
                f"{shown(new)} was not; a task has known classes or new ones: train one on each."
            )
        every = (
            *self.network.class_names,
            *(n for n in names if n not in self.network.class_names),
        )
        tested = np.isin(data.test.labels, present)
        notices = list(data.notices)
        if left := int((~tested).sum()):
            notices.append(f"{left} test samples are of classes without training samples: not used")
        parts = [
            Samples(part.inputs, np.searchsorted(present, part.labels))
            for part in (data.train, data.test.taken(np.flatnonzero(tested)))
        ]
        fitted = replace(
            data,
            train=parts[0],
            test=parts[1],
            class_names=names,
            mean=self.network.mean,
            deviation=self.network.deviation,
            notices=tuple(notices),
        )
        return Next(self, fitted, every, tuple(every.index(n) for n in names), is_new=not known)

    @cached_property
    def _known(self) -> frozenset[str]:
        """Names of classes that some task had samples of."""
        names = self.network.class_names
        if not self.learned.tasks:
            return frozenset(names)
        return frozenset(names[one] for task in self.learned.tasks for one in task.classes)


@dataclass(frozen=True)
class Next:
    """The next task of a network.

    Attributes:
      data: with the statistics of the first task, labels counted among its own classes.
      class_names: of all tasks.
      classes: its own among them: outputs of the whole network.
      is_new: whether nothing of its classes is known: their weights in the last layer are begun
        afresh, and nothing there is protected from them.
    """

    before: Before
    data: Dataset
    class_names: tuple[str, ...]
    classes: tuple[int, ...]
    is_new: bool

    def start(self, network: networks.Network, seed: int) -> list[tuple[str, Array]]:
        """Return the weights that the network of this task begins with.

        Raises:
          InputError: it is another network.
        """
        learned, head = self.before.network.parameters, _head(network)
        found = []
        for name, fresh in networks.initial_parameters(network, seed):
            old = learned[name] if name in learned else np.zeros(0, np.float32)
            if old.ndim != fresh.ndim or old.shape[name in head :] != fresh.shape[name in head :]:
                raise InputError(
                    f"--next {self.before.folder}: its network is "
                    f"{self.before.network.network.text!r} on inputs of shape "
                    f"{_words(self.before.network.network.input_shape)}, this one "
                    f"{network.text!r} on {_words(network.input_shape)}; give data of that shape "
                    "and leave --network out."
                )
            if name not in head:
                found.append((name, np.array(old, np.float32)))
            else:
                found.append((name, fresh if self.is_new else old[list(self.classes)]))
        return found

    def protecting(self, rule: Transform, network: networks.Network, *, regimes: bool) -> Protected:
        """Return a rule that keeps the old tasks; see `Protected`."""
        free = _head(network) if self.is_new else frozenset()
        shapes = {
            name: shape
            for block in network.blocks
            for name, shape in networks.parameter_shapes(block).items()
            if name not in free
        }
        frozen = frozenset(name for name, shape in shapes.items() if len(shape) == 1)
        spaces = {name: self._spaces[name] for name in shapes if name in self._spaces}
        return Protected(rule, spaces, frozen, regimes)

    @cached_property
    def _spaces(self) -> dict[str, Space]:
        tasks, head = self.before.learned.tasks, _head(self.before.network.network)
        found = {}
        for name, one in self.before.learned.directions.items():
            gradients = []
            for task, own, gradient in zip(tasks, one.owned, one.gradients, strict=True):
                outputs = len(self.classes) if name in head else len(gradient)
                whole = np.zeros((outputs, len(own)), np.float32)
                if name not in head or task.classes == self.classes:
                    whole[:, own] = gradient
                gradients.append(whole)
            found[name] = Space(orthonormal(one.codes, one.scale), one.owned, tuple(gradients))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of what protects the old tasks, and of what is kept of them."""
        kept = sum(task.inputs.nbytes + task.labels.nbytes for task in self.before.learned.tasks)
        return sum(s.nbytes for s in self._spaces.values()) + self.before.learned.nbytes + kept

    def whole(self, trained: SavedNetwork) -> SavedNetwork:
        """Return the network of all classes, with what was trained on this task in it."""
        network, parameters = trained.network, trained.parameters
        saved = self.before.network
        every = networks.parse(network.text, network.input_shape, len(self.class_names))
        kind, head = type(parameters), _head(network)
        old = saved.parameters.stored()
        if type(saved.parameters) is not kind:
            old = kind((name, saved.parameters[name]) for name in saved.parameters).stored()
        joined = kind(
            (name, np.zeros(shape, np.float32))
            for block in every.blocks
            for name, shape in networks.parameter_shapes(block).items()
        )
        blocks = dict(parameters.stored())
        for name, target in joined.stored().items():
            if name.removesuffix(":scale") in head:
                rows = np.array(target)
                rows[: len(old[name])] = old[name]
                rows[list(self.classes)] = blocks[name]
                blocks[name] = rows
        joined.load(blocks)
        return replace(trained, network=every, parameters=joined, class_names=self.class_names)

    def remarks(self, answers: NDArray[Any]) -> list[str]:
        """Return what a user should know before the first step, a line each.

        Args:
          answers: (classes, classes) how often each class (row) was taken for which (column) by
            the network as it is, of test samples.
        """
        found, sha256 = [], samples_sha256(self.data)
        for number, task in enumerate(self.before.learned.tasks, 1):
            if task.data_sha256 == sha256:
                found.append(
                    f"the data are those of task {number} ({task.name}) again: nothing new can be "
                    "learned from them, and they will count as a task of their own"
                )
        if self.is_new or not answers.sum():
            return found
        right = float(np.trace(answers) / answers.sum())
        exchanged = answers.argmax(axis=1)
        mended = float(answers.max(axis=1).sum() / answers.sum())
        if right < _WRONG and mended > _RENAMED and len(set(exchanged.tolist())) == len(exchanged):
            wrong = int(np.flatnonzero(exchanged != np.arange(len(exchanged)))[0])
            names = self.data.class_names
            found.append(
                f"labels may have changed their meaning: what the data call {shown(names[wrong])} "
                f"was {shown(names[exchanged[wrong]])} before ({100 * mended:.0f} % of the samples "
                "would be right with exchanged names); if so, give them the old names, or new ones"
            )
        return found


def opened(run: str, continual: str) -> Before:
    """Return a finished run that a new task is to follow.

    Raises:
      InputError, ModelError, RunFolderError: it is none, of another task, not finished, damaged, or
        kept nothing that would protect its tasks.
    """
    folder = folder_of(run)
    _, file = output_of(TASK, folder, "--next")
    ends = [record for record in read_records(folder) if record["kind"] == "end"]
    if ends[-1]["status"] not in ("done", "over cap"):
        raise InputError(
            f"--next {run}: it is not finished; go on first, with `edge-train run --resume {run}`."
        )
    network = network_file.load(file)
    tasks = folder / learned_tasks.FILE
    learned = learned_tasks.load(tasks) if tasks.is_file() else LearnedTasks((), {})
    found = Before(folder, file, network, learned)
    _check(found, continual)
    return found


def folder_of(run: str) -> Path:
    """Return the folder of a run.

    Raises:
      InputError: there is none.
    """
    folder = Path(run).expanduser()
    if not is_run(folder):
        raise InputError(f"--next {run}: there is no run in that folder; name one of task network.")
    return folder


def _check(before: Before, continual: str) -> None:
    network, learned = before.network, before.learned
    shapes = {
        name: shape
        for block in network.network.blocks
        for name, shape in networks.parameter_shapes(block).items()
        if len(shape) == 2
    }
    highest = max((one for task in learned.tasks for one in task.classes), default=0)
    wrong = [name for name, one in learned.directions.items() if name not in shapes]
    wrong += [n for n, one in learned.directions.items() if one.codes.shape[0] != shapes[n][1]]
    if highest >= len(network.class_names) or wrong:
        raise InputError(
            f"--next {before.folder}: {learned_tasks.FILE} and {before.file.name} are not of the "
            "same network; copy the run again."
        )
    if continual == "none":
        return
    if networks.Normalization("batch") in network.network.layers:
        raise InputError(
            f"--next {before.folder}: its network has batch normalization, whose statistics are "
            "those of one task; begin with layernorm, or take --continual none, which forgets."
        )
    if not learned.directions:
        raise InputError(
            f"--next {before.folder}: it has no bases of what its layers read (it was made before "
            "there were any, or with --continual none), and they cannot be had without its data: "
            "train it again on them, or take --continual none, which forgets."
        )


def samples_sha256(data: Dataset) -> str:
    """Return the hash of samples and the names of their classes, however they are numbered."""
    digest = hashlib.sha256()
    for part in (data.train, data.test):
        digest.update(np.ascontiguousarray(part.inputs).data)
        names = [data.class_names[one] for one in part.labels.tolist()]
        digest.update("\n".join(names).encode())
    return digest.hexdigest()


def _head(network: networks.Network) -> frozenset[str]:
    """Return the names of the last layer's parameters, a row for each class."""
    last = network.blocks[-1].name
    return frozenset((f"{last}.weight", f"{last}.bias"))


def _words(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
