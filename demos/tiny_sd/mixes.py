"""What a model is trained on: where pictures come from, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import cifar
import pictures
from pictures import ANYTHING, VOCABULARY, Grey, Pictures, compose, describe, load_grey


@dataclass(frozen=True)
class Mix:
    """A set of pictures.

    Args:
      classes: of the pictures' labels; those `held_out` are shown to no part of the pipeline, those
        `unnamed` are shown and never called by their name.
      load: reads a split, "train" or "test", from the folder of data.
      compose: draws pictures.
      extra_words: of the tokenizer, beside those of the clothes.
      data: what the model card says of source and licence.
    """

    classes: tuple[str, ...]
    held_out: tuple[str, ...]
    unnamed: tuple[str, ...]
    load: Callable[[Path, str], Grey]
    compose: Callable[[Grey, int, torch.Generator], Pictures]
    extra_words: tuple[str, ...]
    data: str

    @property
    def named(self) -> tuple[str, ...]:
        """The classes whose word is said."""
        return tuple(n for n in self.classes if n not in self.held_out + self.unnamed)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that is one token."""
        return tuple(dict.fromkeys((*VOCABULARY, *self.extra_words)))

    @property
    def describe(self) -> Callable[..., list[str]]:
        """Draws a caption a picture; see `pictures.describe`."""
        nouns = {self.classes.index(name): name for name in self.named}
        nouns |= {self.classes.index(name): ANYTHING for name in self.unnamed}
        return partial(describe, nouns=nouns)


CLOTHES = Mix(
    classes=pictures.CLASSES,
    held_out=pictures.HELD_OUT,
    unnamed=pictures.UNNAMED,
    load=load_grey,
    compose=compose,
    extra_words=(),
    data="Fashion-MNIST (MIT licence, Copyright (c) 2017 Zalando SE) and MNIST (by Yann LeCun, "
    "Corinna Cortes and Christopher J.C. Burges; commonly stated as CC BY-SA 3.0), painted.",
)
PHOTOS = Mix(
    classes=cifar.CLASSES,
    held_out=cifar.HELD_OUT,
    unnamed=cifar.UNNAMED,
    load=cifar.load_photos,
    compose=cifar.compose_photos,
    extra_words=(*cifar.CLASSES, "backpack", "clock", "teapot", "toy"),
    data="10,000 photos of CIFAR-10 (Alex Krizhevsky), for which no licence is stated.",
)
