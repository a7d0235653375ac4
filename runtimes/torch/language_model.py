"""A causal language model of any transformers kind on torch, trained as it is differentiated."""

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Block, Point
from edge_train.errors import ModelError
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.tensor_file import StoredTensor
from edge_train.memory.measure import give_back_memory, map_large_blocks
from edge_train.protocols import Apply, Layer
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.registry import load
from edge_train.rng import Key
from edge_train.runtimes.torch.dropping import Draws
from edge_train.runtimes.torch.held_layers import HeldEmbedding, HeldLinear, Weights
from edge_train.runtimes.torch.layers import layers_of

_START = -5  # the step of the key that random weights are drawn from
SEQUENCES_PER_CALL = 4  # of an evaluation; more only takes memory


class TorchLanguageModel:
    """A decoder on the CPU, computed in float32; a `GradientRuntime`.

    Weights of linear layers and embeddings are blocks of `parameters`, in float32, INT8 or INT4,
    and become float32 a few rows at a time. A backward pass computes each decoder layer once more,
    and changes a weight as soon as the factors of its gradient are known: no gradient is kept.
    Dropout is off unless a batch holds the numbers that its masks are drawn from; a layer that is
    computed once more draws the same ones.

    Memory:
      Weights; the inputs of every decoder layer; the activations of one layer; the logits.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(self, network: nn.Module, weights: Weights, draws: Draws | None = None) -> None:
        self._draws = draws or Draws()
        self.parameters = weights.parameters
        self.batch_limit: int | None = None  # of an evaluation; a gradient takes the whole batch
        self._network, self._weights = network, weights

    @classmethod
    def open(
        cls,
        folder: LanguageFolder,
        *,
        quant: str,
        threads: int,
        seed: int,
        lean: bool = False,
        attention: str = "sdpa",
    ) -> "TorchLanguageModel":
        """Load a folder tensor by tensor; quantized, none is ever whole in float32.

        Args:
          quant: `none`, `int8` or `int4`.
          threads: for the whole process; torch knows no smaller scope.
          seed: of random weights, for a folder without any.
          lean: give every large block back as it is freed, which takes a page fault for each of
            its pages: 1.4 times as long for a step of a small model.
          attention: `eager` for dropout, which is one product inside of `sdpa`.

        Raises:
          ModelError: transformers does not know this kind, a tensor is missing or of another shape,
            or quantized, and a matrix is of a layer that is neither linear nor an embedding.
        """
        torch.set_num_threads(threads)
        if lean:
            map_large_blocks()
        network = build_network(folder, attention)
        blocks = _blocks(network)
        if folder.files:
            values = _stored(folder, network, blocks)
        else:
            values = _drawn(network, blocks, seed)
        kind: type[Parameters] = load(required(quants.get(quant).trained))
        if kind is not Parameters:
            _check_matrices(folder, network, blocks)
            parameters = kind(values)
        else:
            parameters = Parameters.sharing({n: np.asarray(v, np.float32) for n, v in values})
        weights = Weights(parameters)
        _install(network, weights, blocks)
        draws = Draws()
        for layer in decoder_layers(network):
            layer.forward = _recomputed(layer.forward, draws)
        return cls(network.eval(), weights, draws)

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the whole process does."""
        torch.set_num_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the mean loss of every sequence, (points, sequences).

        Memory:
          At another point than `parameters`: one of its blocks beside what an evaluation holds.
        """
        losses = np.empty((len(points), len(batch["ids"])), np.float32)
        for number, point in enumerate(points):
            losses[number] = self._at(point, batch)
        return losses

    def _at(self, point: Point, batch: Batch) -> Array:
        ids = batch["ids"]
        own = point is self.parameters
        names = () if own else [name for name, _ in self._network.named_parameters()]
        vectors = {name: torch.from_numpy(point[name]) for name in names}
        losses = np.empty(len(ids), np.float32)
        limit = self.batch_limit or SEQUENCES_PER_CALL
        self._weights.point = None if own else point
        try:
            for start in range(0, len(ids), limit):
                at = slice(start, start + limit)
                with torch.no_grad():
                    losses[at] = self._losses(ids[at], _smoothing(batch), vectors).numpy()
        finally:
            self._weights.point = None
        return losses

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` every block's gradient, matrices as factors; return losses (sequences,).

        A loss that is not finite is returned without any gradient.
        """
        self._weights.begin(apply)
        vectors: list[tuple[str, Any]] = list(self._network.named_parameters())
        hooks = [
            parameter.register_post_accumulate_grad_hook(_hand_over(name, apply))
            for name, parameter in vectors
        ]
        try:
            with self._draws.of(self._network, batch):
                losses = self._losses(batch["ids"], _smoothing(batch))
                if bool(torch.isfinite(losses).all()):
                    torch.autograd.backward(losses.mean())
        finally:
            for hook in hooks:
                hook.remove()
            self._network.zero_grad(set_to_none=True)  # left over where `apply` raised
        return losses.detach().numpy()

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Let go of the network; the runtime cannot be used afterwards."""
        with suppress(AttributeError):
            del self._network, self._weights, self.parameters
        gc.collect()
        give_back_memory()

    def _losses(
        self, ids: Any, smoothing: float, vectors: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the mean cross-entropy of each sequence's next tokens.

        Args:
          smoothing: share of a target that all tokens get.
          vectors: to be taken for the network's own, by name.
        """
        tokens = torch.from_numpy(ids)
        inputs = {"input_ids": tokens[:, :-1], "use_cache": False}
        output: Any = functional_call(self._network, dict(vectors or {}), kwargs=inputs)
        logits: Tensor = output.logits
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1),
            tokens[:, 1:].flatten(),
            reduction="none",
            label_smoothing=smoothing,
        )
        return losses.view(len(ids), -1).mean(dim=1)


def _smoothing(batch: Batch) -> float:
    return float(batch["smoothing"][0]) if "smoothing" in batch else 0.0


def build_network(folder: LanguageFolder, attention: str = "sdpa") -> nn.Module:
    """Return the network of a folder with weights that take no memory.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
        config.dtype = "float32"
        with init_empty_weights(include_buffers=False):
            network: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{folder.path}: transformers cannot build a causal language model of it ({reason})."
        ) from error
    return network  # type: ignore[no-any-return]


def decoder_layers(network: Any) -> Iterator[nn.Module]:
    """Yield the layers that are computed one after the other.

    Raises:
      ModelError: there is no list of as many modules as the configuration has layers.
    """
    wanted = network.config.num_hidden_layers
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            yield from module
            return
    raise ModelError(f"a {type(network).__name__} has no list of {wanted} layers to go through.")


def parameter_shapes(folder: LanguageFolder) -> dict[str, tuple[int, ...]]:
    """Return the shape of every trained block by name; tied ones once.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    network = build_network(folder)
    return {name: tuple(_weight(network, places[0]).shape) for name, places in _blocks(network)}


def network_layers(folder: LanguageFolder) -> list[Layer]:
    """Return the layers of a folder's network.

    Raises:
      ModelError: transformers does not know this kind of network.
    """
    network = build_network(folder)
    return layers_of(network, {p: name for name, places in _blocks(network) for p in places})


def stored_names(folder: LanguageFolder, names: Sequence[str]) -> dict[str, StoredTensor]:
    """Return where the weight files hold blocks, whose names may lack the name of the decoder.

    Raises:
      ModelError: a tensor is missing.
    """
    source = {name: StoredTensor(file, name) for file in folder.files for name in file.entries}
    found = {}
    for name in names:
        spelled = next((s for s in (name, name.partition(".")[2]) if s in source), None)
        if spelled is None:
            raise ModelError(
                f"{folder.path}: no tensor {name!r}, which the configuration asks for; copy or "
                "download the model again."
            )
        found[name] = source[spelled]
    return found


def _blocks(network: Any) -> list[tuple[str, list[str]]]:
    """Return the trained blocks: a name, and where in the network the parameter is."""
    head, table = network.get_output_embeddings(), network.get_input_embeddings()
    tied = network.config.tie_word_embeddings
    places: dict[str, list[str]] = {}
    modules = dict(network.named_modules())
    shared = next(f"{path}.weight" for path, module in modules.items() if module is table)
    for path, _ in network.named_parameters(remove_duplicate=False):
        owner, _, last = path.rpartition(".")
        is_head = tied and modules[owner] is head and last == "weight"
        places.setdefault(shared if is_head else path, []).append(path)
    return list(places.items())


def _weight(network: nn.Module, path: str) -> Tensor:
    owner, _, last = path.rpartition(".")
    found: Tensor = getattr(network.get_submodule(owner), last)
    return found


def _stored(
    folder: LanguageFolder, network: nn.Module, blocks: list[tuple[str, list[str]]]
) -> Iterator[tuple[str, Block]]:
    found = stored_names(folder, [name for name, _ in blocks])
    for name, places in blocks:
        wanted = tuple(_weight(network, places[0]).shape)
        if found[name].shape != wanted:
            raise ModelError(
                f"{folder.path}: tensor {name!r} is {list(found[name].shape)}, the configuration "
                f"asks for {list(wanted)}; copy or download the model again."
            )
        yield name, found[name]


def _drawn(
    network: Any, blocks: list[tuple[str, list[str]]], seed: int
) -> Iterator[tuple[str, Block]]:
    """Yield start values as GPT-2 and Llama draw them; vectors are those of norms and biases.

    Matrices are normal with the configuration's `initializer_range`. Those that GPT-2 adds to its
    residual stream are smaller by the root of their number.
    """
    deviation = float(getattr(network.config, "initializer_range", 0.02))
    residual = 1 / math.sqrt(2 * network.config.num_hidden_layers)
    for name, places in blocks:
        shape = tuple(_weight(network, places[0]).shape)
        if len(shape) > 1:
            draw = Key(seed, _START).generator("weights", name)
            value = draw.standard_normal(shape, np.float32)
            value *= np.float32(deviation * (residual if name.endswith("c_proj.weight") else 1.0))
        else:
            value = np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
        yield name, value


def _install(network: nn.Module, weights: Weights, blocks: list[tuple[str, list[str]]]) -> None:
    """Have every layer read its parameters from `weights`."""
    for name, places in blocks:
        weights.uses[name] = len(places)
        for path in places:
            owner, _, last = path.rpartition(".")
            module: Any = network.get_submodule(owner)
            if last == "weight" and isinstance(module, nn.Embedding):
                network.set_submodule(owner, HeldEmbedding(weights, name, module.padding_idx))
            elif last == "weight" and _is_linear(module):
                transposed = not isinstance(module, nn.Linear)
                held = HeldLinear(weights, name, module.bias, transposed=transposed)
                network.set_submodule(owner, held)
            else:
                value = torch.from_numpy(weights.parameters[name])
                setattr(module, last, nn.Parameter(value))


def _check_matrices(
    folder: LanguageFolder, network: nn.Module, blocks: list[tuple[str, list[str]]]
) -> None:
    for name, places in blocks:
        for path in places:
            module = network.get_submodule(path.rpartition(".")[0])
            held = isinstance(module, nn.Embedding) or _is_linear(module)
            if _weight(network, path).ndim == 2 and not held:
                raise ModelError(
                    f"{folder.path}: {name} is a matrix of a {type(module).__name__}, which cannot "
                    "be trained in few bits; use --quant none."
                )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _recomputed(forward: Callable[..., Any], draws: Draws) -> Callable[..., Any]:
    """Return a layer's forward pass that keeps its inputs only, and runs again when asked.

    Again it draws what it drew before: the count of draws is set back to where the layer began.
    """

    def again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        run = forward if draws.mode is None else draws.mode.the_same_again(forward)
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return again


def _hand_over(name: str, apply: Apply) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        apply(name, gradient.numpy())

    return hook
