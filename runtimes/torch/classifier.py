"""Sequence classifiers in torch: losses, and gradients that leave one block at a time."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import ModelError
from edge_train.formats.classifier_folder import ClassifierFolder, initial_head
from edge_train.formats.tensor_file import StoredTensor
from edge_train.memory.measure import give_back_memory
from edge_train.protocols import Apply, Layer
from edge_train.runtimes.torch.dropping import Dropping
from edge_train.runtimes.torch.layers import layers_of

_TEXTS_PER_CALL = 16  # of an evaluation; more only takes memory
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


class TorchClassifier:
    """A transformers classifier on the CPU in float32; a `GradientRuntime`.

    The trainable blocks are the network's own parameters: `parameters` and the network share their
    memory. Dropout is off unless a batch holds the numbers that its masks are drawn from, so that a
    step is a function of its batch and a run can be resumed.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(self, network: nn.Module, parameters: Parameters) -> None:
        self.parameters = parameters
        self.batch_limit: int | None = None  # texts in one call; None: a few, or a step's at once
        self._network = network
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}

    @classmethod
    def open(
        cls,
        folder: ClassifierFolder,
        *,
        trainable: str,
        threads: int,
        seed: int = 0,
        attention: str = "sdpa",
    ) -> "TorchClassifier":
        """Load a folder.

        Args:
          trainable: `all`; `head`, what stands on top of the encoder; or `norms`, the head and all
            vectors: scales and shifts of norms, biases.
          threads: for the whole process; torch knows no smaller scope.
          seed: of a head that the folder lacks.
          attention: `eager` for dropout, which is one product inside of `sdpa`.

        Raises:
          ModelError: a weight file is damaged or does not fit its configuration.

        Memory:
          The weights once, in float32.
        """
        torch.set_num_threads(threads)
        network, blocks = load_classifier(folder, attention, seed=seed)
        trained = set(blocks)
        if trainable != "all":
            trained = head_names(network)
        if trainable == "norms":
            trained |= {name for name, block in blocks.items() if block.ndim == 1}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)
        parameters = Parameters.sharing({n: v for n, v in blocks.items() if n in trained})
        return cls(network, parameters)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the whole process does."""
        torch.set_num_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, texts); points that differ only in the head share the encoder."""
        losses = np.empty((len(points), len(batch["labels"])), np.float32)
        for at in self._few_texts(batch):
            with self._encoder_shared():
                for number, point in enumerate(points):
                    logits = self._run_at(point, batch, at)
                    losses[number, at] = _losses(logits, batch, at).numpy()
        return losses

    def logits(self, batch: Batch, point: Point) -> Array:
        """Return the outputs (texts, classes) before the softmax."""
        parts = (self._run_at(point, batch, at) for at in self._few_texts(batch))
        return np.concatenate([part.numpy() for part in parts])

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` every block's gradient as soon as it is whole; return losses (samples,).

        A gradient is freed before the next one is complete, and its block may change at once:
        nothing that is still to be differentiated reads it. A loss that is not finite is returned
        without any gradient.

        Memory:
          The activations of the whole batch, and the gradients of one layer. With a `batch_limit`
          below the batch, the activations of that many texts, and the gradients of all layers:
          they add up in parts, and are handed over with the last one.
        """
        trained: list[tuple[str, Any]] = [
            (name, parameter)
            for name, parameter in self._network.named_parameters()
            if parameter.requires_grad
        ]
        count = len(batch["labels"])
        size = min(self.batch_limit or count, count)
        losses = torch.empty(count)
        hooks: list[Any] = []
        try:
            for start in range(0, count, size):
                at = slice(start, start + size)
                own = _losses(self._in_training(batch, at), batch, at)
                losses[at] = own.detach()
                if not bool(torch.isfinite(losses[: at.stop]).all()):
                    losses[at.stop :] = torch.nan  # not computed
                    break
                if at.stop >= count:  # what the parts left is whole now
                    hooks += [
                        parameter.register_post_accumulate_grad_hook(_hand_over(name, apply))
                        for name, parameter in trained
                    ]
                torch.autograd.backward(own.sum() / count)
        finally:
            for hook in hooks:
                hook.remove()
            self._network.zero_grad(set_to_none=True)  # left over where `apply` raised
        return losses.numpy()

    def weights(self, point: Point) -> dict[str, Array]:
        """Return every parameter of the network by name; trainable ones are those of `point`."""
        own = {n: p.detach().numpy() for n, p in self._network.named_parameters()}
        return own | dict(point)

    def layers(self) -> list[Layer]:
        """Return the layers of the network; of the head, all that is on top of the encoder at once.

        peft keeps a head whole whatever it is made of, so its modules are one layer of kind other.
        """
        encoder = self._network.base_model_prefix
        layers = layers_of(self._network, {name: name for name in self._names.values()})
        found = [layer for layer in layers if layer.path.startswith(f"{encoder}.")]
        heads: dict[str, dict[str, str]] = {}
        for name in sorted(head_names(self._network)):
            path, _, last = name.partition(".")
            heads.setdefault(path, {})[last] = name
        return [*found, *(Layer(path, "other", blocks) for path, blocks in heads.items())]

    def stored(self, folder: ClassifierFolder) -> dict[str, StoredTensor]:
        """Return where the folder's files hold parameters, by the network's names."""
        source = {name: file for file in folder.weight_files() for name in file.entries}
        found = {}
        for name in self._names.values():
            for spelled in _spellings(name, str(self._network.base_model_prefix)):
                if spelled in source and name not in found:
                    found[name] = StoredTensor(source[spelled], spelled)
        return found

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Let go of the network; the runtime cannot be used afterwards."""
        with suppress(AttributeError):
            del self._network
        gc.collect()
        give_back_memory()

    def _few_texts(self, batch: Batch) -> Iterator[slice]:
        limit = self.batch_limit or _TEXTS_PER_CALL
        return (slice(start, start + limit) for start in range(0, len(batch["ids"]), limit))

    def _run_at(self, point: Point, batch: Batch, at: slice) -> Tensor:
        """Return the logits of some texts at a point."""
        with torch.no_grad(), self._computing_at(point):
            return self._run(batch, at)

    @contextmanager
    def _encoder_shared(self) -> Iterator[None]:
        """Let the encoder compute once for all points, where only what is on top is trained."""
        name = str(self._network.base_model_prefix)
        encoder = getattr(self._network, name)
        if not set(self.parameters) <= head_names(self._network):
            yield
            return
        setattr(self._network, name, _Once(encoder))
        try:
            yield
        finally:
            setattr(self._network, name, encoder)

    @contextmanager
    def _computing_at(self, point: Point) -> Iterator[None]:
        """Let every module compute with its part of `point`, read when it begins, dropped after it.

        Blocks of a perturbed point are made when they are read, so that a whole copy of the weights
        never exists.

        Raises:
          ModelError: the network reads a module's weights without calling it.
        """
        if point is self.parameters:
            yield
            return
        waiting: set[nn.Module] = set()
        live: dict[nn.Module, list[tuple[nn.Parameter, Tensor]]] = {}

        def begin(module: nn.Module, _: Any) -> None:
            waiting.discard(module)
            live[module] = [(own, own.data) for own in self._trained(module)]
            for own, _ in live[module]:
                own.data = torch.from_numpy(point[self._names[id(own)]])

        def end(module: nn.Module, *_: Any) -> None:
            for own, data in live.pop(module, []):
                own.data = data

        hooks = []
        for module in self._network.modules():
            if any(True for _ in self._trained(module)):
                waiting.add(module)
                hooks.append(module.register_forward_pre_hook(begin))
                hooks.append(module.register_forward_hook(end, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if waiting:
            raise ModelError(
                f"this network reads weights of a {type(waiting.pop()).__name__} without calling "
                "it, so that they cannot be moved one layer at a time; use --trainable head."
            )

    def _trained(self, module: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the trainable parameters that a module itself has."""
        for own in module.parameters(recurse=False):
            if self._names[id(own)] in self.parameters:
                yield own

    def _in_training(self, batch: Batch, at: slice) -> Tensor:
        """Return the logits of some texts, with dropout where the batch says how it is drawn."""
        if "dropout" not in batch:
            return self._run(batch, at)
        self._network.train()
        try:
            with Dropping(batch["dropout"][at].tolist()):
                return self._run(batch, at)
        finally:
            self._network.eval()

    def _run(self, batch: Batch, at: slice) -> Tensor:
        output: Any = self._network(
            input_ids=torch.from_numpy(batch["ids"][at]),
            attention_mask=torch.from_numpy(batch["mask"][at]),
        )
        logits: Tensor = output.logits
        return logits


class _Once(nn.Module):
    """A module that computes at the first call, and gives the same outputs again after it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._outputs: Any = None

    def forward(self, *given: Any, **named: Any) -> Any:
        if self._outputs is None:
            self._outputs = self.module(*given, **named)
        return self._outputs


def _losses(logits: Tensor, batch: Batch, at: slice) -> Tensor:
    """Return the loss of some texts: of numbers the squared error, of classes cross-entropy."""
    labels = torch.from_numpy(batch["labels"][at])
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits[:, 0], labels, reduction="none")
    smoothing = float(batch["smoothing"][0]) if "smoothing" in batch else 0.0
    losses = nn.functional.cross_entropy(
        logits, labels, reduction="none", label_smoothing=smoothing
    )
    return losses * torch.from_numpy(batch["weights"][at]) if "weights" in batch else losses


def _hand_over(name: str, apply: Apply) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        apply(name, gradient.numpy())

    return hook


def load_classifier(
    folder: ClassifierFolder, attention: str = "sdpa", seed: int = 0
) -> tuple[nn.Module, dict[str, Array]]:
    """Return the network and its parameters by name, in the same memory.

    A folder without a classifier on top (a plain encoder) gets one: small random numbers of a
    seed, the same in every process.

    Raises:
      ModelError: transformers does not know this kind of network, or a tensor of the encoder is
        missing or has another shape than the configuration says.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
        config.num_labels = len(folder.labels)
        config.pad_token_id = folder.pad  # decoders take the logits of the last id that is not it
        with init_empty_weights(include_buffers=False):
            network: Any = AutoModelForSequenceClassification.from_config(
                config, attn_implementation=attention
            )
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{folder.path}: transformers cannot build a sequence classifier of it ({reason})."
        ) from error
    source = {name: file for file in folder.weight_files() for name in file.entries}
    blocks: dict[str, Array] = {}
    heads = head_names(network)
    for name, parameter in list(network.named_parameters()):
        stored = next((n for n in _spellings(name, network.base_model_prefix) if n in source), None)
        if stored is not None:
            value = source[stored].read(stored)
        elif name in heads:
            value = initial_head(name, tuple(parameter.shape), seed)
        else:
            raise ModelError(
                f"{folder.path}: no tensor {name!r}, which the configuration asks for; copy or "
                "download the model again."
            )
        if value.shape != tuple(parameter.shape):
            raise ModelError(
                f"{folder.path}: tensor {name!r} is {list(value.shape)}, the configuration asks "
                f"for {list(parameter.shape)}; copy or download the model again."
            )
        blocks[name] = value
        owner, _, last = name.rpartition(".")
        shared = nn.Parameter(torch.from_numpy(value), requires_grad=False)
        setattr(network.get_submodule(owner), last, shared)
    return network.eval(), blocks


def new_heads(folder: ClassifierFolder, network: Any) -> tuple[str, ...]:
    """Return the names of the parameters on top that no file of the folder holds."""
    stored = {name for file in folder.weight_files() for name in file.entries}
    prefix = str(network.base_model_prefix)
    return tuple(n for n in sorted(head_names(network)) if not stored & set(_spellings(n, prefix)))


def head_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters on top of the encoder."""
    encoder = f"{network.base_model_prefix}."
    return {name for name, _ in network.named_parameters() if not name.startswith(encoder)}


def _spellings(name: str, prefix: str) -> Iterator[str]:
    """Yield what files may call a parameter: today's name, older ones, a plain encoder's."""
    for spelled in (name, name.removeprefix(f"{prefix}.")):
        yield spelled
        for new, old in _OLD_NAMES.items():
            if spelled.endswith(new):
                yield spelled.removesuffix(new) + old
