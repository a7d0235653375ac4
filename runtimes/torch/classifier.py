"""Sequence classifiers in torch: losses, and gradients that leave one block at a time."""

import gc
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.stored_blocks import plain
from edge_train.formats.tensor_file import StoredTensor
from edge_train.memory.measure import give_back_memory
from edge_train.protocols import Apply, LastLayer, Layer
from edge_train.runtimes.torch.calls import TEXTS_PER_CALL
from edge_train.runtimes.torch.card import (
    HOST,
    CardMemory,
    limit_memory,
    on_host,
    pick_device,
    repeatable,
)
from edge_train.runtimes.torch.card_copies import CardCopies, move_network
from edge_train.runtimes.torch.classifier_network import (
    head_names,
    load_classifier,
    new_heads,
    stored_network,
)
from edge_train.runtimes.torch.dropping import Dropping
from edge_train.runtimes.torch.last_layer import classifier_factors, output_layer
from edge_train.runtimes.torch.layer_inputs import Found, inputs_of
from edge_train.runtimes.torch.layers import layers_of
from edge_train.runtimes.torch.leaving import leaving
from edge_train.runtimes.torch.products import products_in


class TorchClassifier:
    """A transformers classifier on the CPU in float32, or on a card; a `GradientRuntime`.

    The trainable blocks are the network's own parameters: `parameters` and the network share their
    memory. On a card the network is a copy, whose trained blocks are taken anew before every call
    (`card_copies.py`). Dropout is off unless a batch holds the numbers that its masks are drawn
    from, so that a step is a function of its batch and a run can be resumed.

    Attributes:
      device: where it computes.
      dtype: of products: `float32`, or `bfloat16` by torch's autocast; parameters, gradients and
        losses are float32 with both.
    """

    device: str
    dtype: str
    pages = None

    def __init__(
        self,
        network: nn.Module,
        parameters: Parameters,
        device: torch.device = HOST,
        dtype: str = "float32",
    ) -> None:
        self.parameters = parameters
        self.device, self.dtype = device.type, dtype
        self._device, self._kind = device, products_in(dtype)
        self.card = CardMemory(device)
        self._copies = None if device == HOST else CardCopies(network, parameters)
        self.batch_limit: int | None = None  # texts in one call; None: a few, or a step's at once
        self._network = network
        self._read_apart: set[str] = set()  # blocks that are read without a call of their layer
        self.architecture: str | None = type(network).__name__  # as transformers calls it
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}

    @classmethod
    def open(
        cls,
        folder: ClassifierFolder,
        *,
        trainable: str,
        threads: int,
        seed: int = 0,
        attention: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        cap_bytes: int | None = None,
    ) -> "TorchClassifier":
        """Load a folder.

        Args:
          trainable: `all`; `head`, what stands on top of the encoder; or `norms`, the head and all
            vectors: scales and shifts of norms, biases.
          threads: for the whole process; torch knows no smaller scope.
          seed: of a head that the folder lacks.
          attention: `eager` for dropout, which is one product inside of `sdpa`; None: what
            transformers takes.
          device, dtype: `cpu` or `cuda`; `float32` or `bfloat16`.
          cap_bytes: of a card, what this process may take of it; more fails as out of memory.

        Raises:
          InputError: `cuda` was named and there is none, or the cap is less than it takes empty.
          ModelError: a weight file is damaged or does not fit its configuration.

        Memory:
          The weights once, in float32; with a card the trained ones here, and all of them there.
        """
        torch.set_num_threads(threads)
        where = pick_device(device)
        limit_memory(where, cap_bytes)
        network, blocks = load_classifier(folder, attention, seed=seed)
        trained = set(blocks)
        if trainable != "all":
            trained = head_names(network) | set(new_heads(folder, network))
        if trainable == "norms":
            trained |= {name for name, block in blocks.items() if block.ndim == 1}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)
        parameters = Parameters.sharing({n: v for n, v in blocks.items() if n in trained})
        if where != HOST:
            move_network(network, where)
        return cls(network, parameters, where, dtype)

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
                    losses[number, at] = on_host(_losses(logits, batch, at))
        return losses

    def logits(self, batch: Batch, point: Point) -> Array:
        """Return the outputs (texts, classes) before the softmax."""
        parts = (self._run_at(point, batch, at) for at in self._few_texts(batch))
        return np.concatenate([on_host(part) for part in parts])

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
        self._refresh()
        count = len(batch["labels"])
        size = min(self.batch_limit or count, count)
        losses = torch.empty(count)
        hooks: list[Any] = []
        try:
            for start in range(0, count, size):
                at = slice(start, start + size)
                own = _losses(self._in_training(batch, at), batch, at)
                losses[at] = own.detach().cpu()
                if not bool(torch.isfinite(losses[: at.stop]).all()):
                    losses[at.stop :] = torch.nan  # not computed
                    break
                if at.stop >= count:  # what the parts left is whole now
                    hooks += [
                        parameter.register_post_accumulate_grad_hook(leaving(name, apply))
                        for name, parameter in trained
                    ]
                torch.autograd.backward(own.sum() / count)
        finally:
            for hook in hooks:
                hook.remove()
            self._network.zero_grad(set_to_none=True)  # left over where `apply` raised
        return losses.numpy()

    def inputs(self, batch: Batch) -> Iterator[Found]:
        """Yield what enters every trained linear layer, padding left out; see `TellsInputs`."""
        names = ((self._names[id(m.weight)], m) for m in self._network.modules() if _is_linear(m))
        layers = [(name, layer, False) for name, layer in names if name in self.parameters]
        mask = torch.from_numpy(batch["mask"]).bool().to(self._device)
        self._refresh()

        def counted(inputs: Tensor) -> Tensor:
            return inputs[mask] if inputs.shape[:2] == mask.shape else inputs

        return inputs_of(layers, lambda: self._run(batch, slice(None)), counted)

    @property
    def last_layer_shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer that gives the logits; see `TellsLastLayer`."""
        layer = output_layer(self._network)
        return layer.out_features, layer.in_features

    def last_layer(self, batch: Batch) -> LastLayer:
        """Return what the gradient of that layer is made of, text by text."""
        self._refresh()
        return classifier_factors(
            output_layer(self._network),
            self._few_texts(batch),
            lambda at: self._run(batch, at),
            lambda logits, at: _losses(logits, batch, at),
        )

    def rest(self, names: Collection[str]) -> None:
        """Form no gradient of these blocks from now on, only of all others."""
        resting = set(names)
        for name, parameter in self._network.named_parameters():
            if name in self.parameters:
                parameter.requires_grad_(name not in resting)

    def weights(self, point: Point) -> dict[str, Array]:
        """Return every parameter of the network by name; trainable ones are those of `point`."""
        own = {n: on_host(p) for n, p in self._network.named_parameters() if n not in point}
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
        return plain(stored_network(folder, self._network).sources)

    def device_bytes(self) -> int:
        """Return the most that was held on a card, 0 on the host; see `CardMemory`."""
        return self.card.peak_bytes()

    def close(self) -> None:
        """Let go of the network; the runtime cannot be used afterwards."""
        with suppress(AttributeError):
            del self._network
        gc.collect()
        give_back_memory()
        self.card.give_back()

    def _refresh(self) -> None:
        """Take what was changed on the host since the last call, where a card computes."""
        if self._copies is not None:
            self._copies.take(self.parameters)

    def _few_texts(self, batch: Batch) -> Iterator[slice]:
        limit = self.batch_limit or TEXTS_PER_CALL
        return (slice(start, start + limit) for start in range(0, len(batch["ids"]), limit))

    def _run_at(self, point: Point, batch: Batch, at: slice) -> Tensor:
        """Return the logits of some texts at a point.

        Where a network turns out to read weights of a layer without calling it (relative positions
        of DeBERTa), it computes once more, with those moved for the whole pass; and so ever after.
        """
        with torch.no_grad():
            while True:
                with self._computing_at(point) as unread:
                    logits = self._run(batch, at)
                if not unread:
                    return logits
                self._read_apart |= unread

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
    def _computing_at(self, point: Point) -> Iterator[set[str]]:
        """Let every module compute with its part of `point`, read when it begins, dropped after it.

        Blocks of a perturbed point are made when they are read, so that a whole copy of the weights
        never exists. Yields the names of those that no called module has; after the pass, what is
        left in it was not moved.
        """
        unread: set[str] = set()
        if self._copies is not None:
            self._copies.take(point)
            yield unread
            return
        if point is self.parameters:
            yield unread
            return
        live: dict[nn.Module, list[tuple[nn.Parameter, Tensor]]] = {}
        apart = [(own, own.data) for own in self._network.parameters() if self._is_apart(own)]
        for own, _ in apart:
            own.data = torch.from_numpy(point[self._names[id(own)]])

        def begin(module: nn.Module, _: Any) -> None:
            live[module] = [(own, own.data) for own in self._trained(module)]
            for own, _ in live[module]:
                unread.discard(self._names[id(own)])
                own.data = torch.from_numpy(point[self._names[id(own)]])

        def end(module: nn.Module, *_: Any) -> None:
            for own, data in live.pop(module, []):
                own.data = data

        hooks = []
        for module in self._network.modules():
            if names := {self._names[id(own)] for own in self._trained(module)}:
                unread |= names
                hooks.append(module.register_forward_pre_hook(begin))
                hooks.append(module.register_forward_hook(end, always_call=True))
        try:
            yield unread
        finally:
            for hook in hooks:
                hook.remove()
            for own, data in apart:
                own.data = data

    def _trained(self, module: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the trainable parameters that a module itself has and reads when it is called."""
        for own in module.parameters(recurse=False):
            if self._names[id(own)] in self.parameters and not self._is_apart(own):
                yield own

    def _is_apart(self, own: nn.Parameter) -> bool:
        return self._names[id(own)] in self._read_apart

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
        types = {}
        if "types" in batch:
            types["token_type_ids"] = torch.from_numpy(batch["types"][at]).to(self._device)
        with repeatable(self._device), self._products():
            output: Any = self._network(
                input_ids=torch.from_numpy(batch["ids"][at]).to(self._device),
                attention_mask=torch.from_numpy(batch["mask"][at]).to(self._device),
                **types,
            )
        logits: Tensor = output.logits.float()
        return logits

    def _products(self) -> AbstractContextManager[object]:
        """Have products made in the type of this engine in here."""
        if self._kind == torch.float32:
            return nullcontext()
        return torch.autocast(self.device, dtype=self._kind)


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(module, nn.Linear)


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
    labels = torch.from_numpy(batch["labels"][at]).to(logits.device)
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits[:, 0], labels, reduction="none")
    smoothing = float(batch["smoothing"][0]) if "smoothing" in batch else 0.0
    losses = nn.functional.cross_entropy(
        logits, labels, reduction="none", label_smoothing=smoothing
    )
    if "weights" not in batch:
        return losses
    return losses * torch.from_numpy(batch["weights"][at]).to(logits.device)
