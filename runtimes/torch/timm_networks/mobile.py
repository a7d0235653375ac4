"""EfficientNet, MobileNetV2 and MobileNetV3 by timm's names.

Source: arXiv:1905.11946 (EfficientNet; Lite: ReLU6, no squeeze-and-excitation), arXiv:1801.04381,
arXiv:1905.02244. Names that begin with `tf_` are of networks that TensorFlow trained: padded as it
does, with its epsilon.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn import functional

from edge_train.runtimes.torch.timm_networks.step import (
    Step,
    Weights,
    batch_norm,
    conv,
    mean_of_pixels,
    numbered,
)

_Activation = Callable[[Tensor], Tensor]
_TENSORFLOW_EPSILON, _EPSILON = 1e-3, 1e-5


@dataclass(frozen=True)
class _Look:
    """What the weights of a network do not say.

    Attributes:
      strides: of the first block of each stage.
      early, late: activations of the first `turn` stages and of the others.
      gate, squeezed: of squeeze-and-excitation: its gate and the activation before it.
      same, epsilon: as TensorFlow has padding and epsilon, or not.
      pooled: whether features are averaged before the last convolution.
    """

    strides: Sequence[int]
    early: _Activation
    late: _Activation
    turn: int
    gate: _Activation
    squeezed: _Activation
    same: bool
    epsilon: float
    pooled: bool = False


def efficientnet(names: Iterable[str], architecture: str) -> Sequence[Step]:
    """Return the steps of an EfficientNet from pixels (n, 3, side, side) to features (n, width)."""
    act = functional.relu6 if "lite" in architecture else functional.silu
    sides = (1, 2, 2, 2, 1, 2, 1)
    return _steps(names, _look(architecture, sides, act, act, 0, Tensor.sigmoid, act))


def mobilenet_v2(names: Iterable[str], architecture: str) -> Sequence[Step]:
    """Return the steps of a MobileNetV2."""
    act, sides = functional.relu6, (1, 2, 2, 2, 1, 2, 1)
    return _steps(names, _look(architecture, sides, act, act, 0, Tensor.sigmoid, act))


def mobilenet_v3_large(names: Iterable[str], architecture: str) -> Sequence[Step]:
    """Return the steps of a large MobileNetV3."""
    return _third(names, architecture, (1, 2, 2, 2, 1, 2, 1), turn=3)


def mobilenet_v3_small(names: Iterable[str], architecture: str) -> Sequence[Step]:
    """Return the steps of a small MobileNetV3."""
    return _third(names, architecture, (2, 2, 2, 1, 2, 1), turn=2)


def _third(
    names: Iterable[str], architecture: str, strides: Sequence[int], turn: int
) -> Sequence[Step]:
    early, late = functional.relu, functional.hardswish
    gate = functional.hardsigmoid
    return _steps(names, _look(architecture, strides, early, late, turn, gate, early, True))


def _look(
    architecture: str,
    strides: Sequence[int],
    early: _Activation,
    late: _Activation,
    turn: int,
    gate: _Activation,
    squeezed: _Activation,
    pooled: bool = False,
) -> _Look:
    tensorflow = architecture.startswith("tf_")
    epsilon = _TENSORFLOW_EPSILON if tensorflow else _EPSILON
    return _Look(strides, early, late, turn, gate, squeezed, tensorflow, epsilon, pooled)


def _steps(names: Iterable[str], look: _Look) -> Sequence[Step]:
    found, names = [Step("", partial(_stem, look=look))], list(names)
    for stage in numbered(names, "blocks."):
        act = look.early if stage < look.turn else look.late
        for number in numbered(names, f"blocks.{stage}."):
            stride = look.strides[stage] if number == 0 else 1
            run = partial(_block, look=look, act=act, stride=stride, is_first=stage == 0)
            found.append(Step(f"blocks.{stage}.{number}", run, is_block=True))
    return (*found, Step("", partial(_last, look=look)))


def _stem(own: Weights, pixels: Tensor, look: _Look) -> Tensor:
    hidden = conv(own.below("conv_stem"), pixels, 2, look.same)
    return look.late(batch_norm(own.below("bn1"), hidden, look.epsilon))


def _last(own: Weights, inputs: Tensor, look: _Look) -> Tensor:
    if look.pooled:
        hidden = conv(own.below("conv_head"), inputs.mean((2, 3), keepdim=True))
        return look.late(hidden).flatten(1)
    hidden = batch_norm(own.below("bn2"), conv(own.below("conv_head"), inputs), look.epsilon)
    return mean_of_pixels(own, look.late(hidden))


def _block(
    own: Weights, inputs: Tensor, look: _Look, act: _Activation, stride: int, is_first: bool
) -> Tensor:
    normed = partial(_normed, own, epsilon=look.epsilon)
    if "conv.weight" in own:  # MobileNetV3's last stage
        return act(normed("bn1", conv(own.below("conv"), inputs, stride, look.same)))
    hidden, wide = inputs, "conv_pwl.weight" in own
    if wide:
        hidden = act(normed("bn1", conv(own.below("conv_pw"), hidden)))
    hidden = conv(own.below("conv_dw"), hidden, stride, look.same)
    hidden = act(normed("bn2" if wide else "bn1", hidden))
    if "se.conv_reduce.weight" in own:
        pooled = hidden.mean((2, 3), keepdim=True)
        squeezed = look.squeezed(conv(own.below("se.conv_reduce"), pooled))
        hidden = hidden * look.gate(conv(own.below("se.conv_expand"), squeezed))
    last = conv(own.below("conv_pwl" if wide else "conv_pw"), hidden)
    hidden = normed("bn3" if wide else "bn2", last)
    # timm's large MobileNetV3 has no way around its first block
    skips = stride == 1 and hidden.shape[1] == inputs.shape[1] and not (is_first and look.pooled)
    return hidden + inputs if skips else hidden


def _normed(own: Weights, name: str, hidden: Tensor, epsilon: float) -> Tensor:
    return batch_norm(own.below(name), hidden, epsilon)
