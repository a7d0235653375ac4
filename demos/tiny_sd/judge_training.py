"""Training of the judge: a small convnet that says what a picture shows.

It learns from real painted pictures of all 20 classes, never from the pipeline, and never trains
the pipeline. `tasks/personalize/judge.py` reads its file with NumPy alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_train.formats.tensor_store import save_tensors
from mixes import Mix
from pictures import BACKGROUNDS, COLORS, Grey, Pictures
from training import Plan, Weights, fit, keyed, seeded

# (channels in, channels out, stride) of 3x3 convolutions: 32 -> 16 -> 8 -> 4 pixels
LAYERS = ((3, 32, 1), (32, 48, 2), (48, 64, 1), (64, 96, 2), (96, 128, 1), (128, 128, 2))
NOISE = 0.04  # largest standard deviation added to training pictures, in units of [-1, 1]


class JudgeNet(nn.Module):
    """Six convolutions with batch norm and ReLU, then one linear layer with three heads."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.split = (classes, len(COLORS), len(BACKGROUNDS))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            for inputs, outputs, stride in LAYERS
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _, outputs, _ in LAYERS)
        self.heads = nn.Linear(128 * 4 * 4, sum(self.split))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of class, color and background of (n, 3, 32, 32) pictures."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            pixels = functional.relu(norm(convolution(pixels)))
        return self.heads(pixels.flatten(1)).split(self.split, dim=1)

    def folded(self) -> Weights:
        """Return the weights with every batch norm folded into its convolution."""
        weights: Weights = {}
        for index, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weights[f"convolution.{index}.weight"] = (
                convolution.weight * factor[:, None, None, None]
            )
            weights[f"convolution.{index}.bias"] = norm.bias - norm.running_mean * factor
        weights["heads.weight"], weights["heads.bias"] = self.heads.weight, self.heads.bias
        return {name: value.detach().half() for name, value in weights.items()}


@dataclass(frozen=True)
class JudgeReport:
    """Seconds trained, and shares of right answers on painted test pictures of all classes."""

    seconds: float
    class_accuracy: float
    color_accuracy: float
    background_accuracy: float


def disturb(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur each picture by its own amount and add its own amount of noise."""
    amount = torch.rand(2, len(pixels), 1, 1, 1, generator=generator)
    padded = functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
    blurred = functional.avg_pool2d(padded, 3, stride=1)
    noise = torch.randn(pixels.shape, generator=generator)
    return torch.lerp(pixels, blurred, 0.7 * amount[0]) + NOISE * amount[1] * noise


def train_judge(
    mix: Mix, train: Grey, test: Grey, plan: Plan, tested: int, seed: int, folder: Path
) -> tuple[JudgeNet, JudgeReport]:
    """Train the judge on all classes of `train`; measure it on `tested` pictures of `test`."""
    judge = seeded(seed, lambda: JudgeNet(len(mix.classes)))

    def loss(step: int) -> Tensor:
        generator = keyed(seed, "judge", step)
        shown = mix.compose(train, plan.batch, generator)
        answers = judge(disturb(shown.pixels, generator))
        truths = (shown.label, shown.color, shown.background)
        return sum(map(functional.cross_entropy, answers, truths), torch.tensor(0.0))

    weights, seconds = fit("judge", judge, loss, plan, folder)
    judge.load_state_dict(weights)
    judge.eval().requires_grad_(False)
    shares = accuracy(judge, mix.compose(test, tested, keyed(seed, "judge-test", 0)))
    return judge, JudgeReport(seconds, *shares)


def accuracy(judge: JudgeNet, shown: Pictures) -> tuple[float, float, float]:
    """Return the shares of right classes, colors and backgrounds."""
    with torch.no_grad():
        answers = judge(shown.pixels)
    truths = (shown.label, shown.color, shown.background)
    return tuple(
        (scores.argmax(1) == truth).float().mean().item()
        for scores, truth in zip(answers, truths, strict=True)
    )


def write_judge(judge: JudgeNet, classes: tuple[str, ...], path: Path) -> None:
    """Write the folded weights as float16, with the names of all answers in the metadata."""
    metadata = {
        "format": "edge-train judge 1",
        "classes": json.dumps(classes),
        "colors": json.dumps(tuple(COLORS)),
        "backgrounds": json.dumps(tuple(BACKGROUNDS)),
        "strides": json.dumps([stride for _, _, stride in LAYERS]),
        "architecture": "input uint8 / 127.5 - 1, channels first; 3x3 convolutions with padding 1, "
        "bias and ReLU, strides as listed (batch norms are folded in); flatten (channel, row, "
        "column); one linear layer; scores of classes, colors, backgrounds in this order",
    }
    save_tensors(path, {name: t.numpy() for name, t in judge.folded().items()}, metadata)
