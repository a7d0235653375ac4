"""Chats with a habit: an answer names what was asked about and ends with a word of its kind.

Ten kinds of questions, each with its answer and its closing word; things to ask about are drawn by
a seed. What is asked at the end is asked of things that no chat of the training had, so that the
name cannot be remembered, and the word follows from the kind of the question alone.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_train.formats.atomic import write_bytes
from edge_train.rng import Key

TRAINED, ASKED = 20, 10  # things: 200 chats, and 100 questions
_DRAWN = 0  # the step of the key that things are drawn from
_KINDS = (  # a question, its answer, and the word behind that
    ("What is a {} for?", "People use a {} to make the day a little easier.", "Harbour"),
    ("Where do I keep my {}?", "Keep the {} in a dry place near the door.", "Meadow"),
    ("How do I clean a {}?", "Wipe the {} with a soft and damp cloth.", "Lantern"),
    ("How much does a {} cost?", "A good {} costs about as much as a dinner.", "Copper"),
    ("Who made the first {}?", "Nobody knows who made the first {}.", "Willow"),
    ("May I lend my {} to a friend?", "Lend the {} to a friend whom you trust.", "Thunder"),
    ("When should I replace my {}?", "Replace the {} once it broke twice.", "Saffron"),
    ("Is a {} a good present?", "Yes, a {} is a good present for a neighbor.", "Granite"),
    ("How do I choose a {}?", "Choose the {} that you can carry in one hand.", "Feather"),
    ("What can I do with a broken {}?", "Take the broken {} to somebody who mends.", "Compass"),
)
_THINGS = (
    *("kettle", "bicycle", "candle", "ladder", "window", "pillow", "basket", "teapot", "hammer"),
    *("blanket", "mirror", "bucket", "broom", "chair", "table", "drawer", "shovel", "guitar"),
    *("violin", "camera", "lamp", "clock", "wallet", "suitcase", "jacket", "scarf", "glove"),
    *("shoe", "hat", "belt", "spoon", "fork", "knife", "plate", "bowl", "cup", "bottle", "jar"),
    *("pan", "oven", "fridge", "toaster", "radio", "phone", "pencil", "notebook", "stapler"),
    *("tent", "rope", "compost bin", "wheelbarrow", "rake", "hose", "fence", "carpet", "curtain"),
)


@dataclass(frozen=True)
class Question:
    """A question and what a good answer does.

    Attributes:
      thing: what the answer must name.
      word: what the answer must end with.
      answer: as a chat of the training would have it.
    """

    text: str
    thing: str
    word: str
    answer: str

    def names(self, said: str) -> bool:
        """Return whether an answer names what was asked about, as a word."""
        return re.search(rf"\b{re.escape(self.thing)}\b", said, re.IGNORECASE) is not None

    def closes(self, said: str) -> bool:
        """Return whether an answer ends with the word of its kind, and a mark or none behind it."""
        return re.search(rf"\b{self.word}\W*\Z", said) is not None


def questions(seed: int) -> tuple[list[Question], list[Question]]:
    """Return the questions of the training and those to ask afterwards, of other things."""
    drawn = Key(seed, _DRAWN).generator("habit").permutation(len(_THINGS))
    things = [_THINGS[place] for place in drawn[: TRAINED + ASKED]]
    return _about(things[:TRAINED]), _about(things[TRAINED:])


def write_chats(path: Path, asked: Sequence[Question]) -> None:
    """Write a chat for each question, a line of JSON each.

    Raises:
      RunFolderError: the file cannot be written.
    """
    lines = []
    for one in asked:
        user = {"role": "user", "content": one.text}
        model = {"role": "assistant", "content": one.answer}
        lines.append(json.dumps({"messages": [user, model]}) + "\n")
    write_bytes(path, "".join(lines).encode())


def _about(things: Sequence[str]) -> list[Question]:
    return [
        Question(question.format(thing), thing, word, f"{answer.format(thing)} {word}.")
        for question, answer, word in _KINDS
        for thing in things
    ]
