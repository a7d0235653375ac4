"""`edge-train bench habit`: what 200 chats teach an adapter, and what that costs on other text.

Every answer of the chats has a habit (`habit_chats`). The real command trains on them with all
defaults but the cap, the number of steps and the tokens of a sequence. Then 100 questions about
things that no chat had are answered greedily, as `edge-train generate` answers, and the perplexity
of a text of another kind is taken, of the model before and after. A second way has some of that
kind of text beside the chats, none of what is judged, and twice the steps. What is finished is read
and not done again, a run that was stopped goes on.
"""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.habit_chats import Question, questions, write_chats
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.tasks.language_model.documents import open_texts
from edge_train.tasks.language_model.sampling import Sampling
from edge_train.tasks.language_model.speaking import (
    Speaker,
    first_draw,
    open_its_base,
    open_speaker,
)

_CAP, _STEPS, _LENGTH = "2GB", 100, 64  # a chat has 50 to 60 tokens
_ANSWER = 40  # tokens at most; those of the chats have 20
_WINDOW, _WINDOWS = 256, 32  # of the other text: 8,192 tokens are predicted
_BESIDE, _LONGER = 40_000, 2  # characters of it beside the chats, and times the steps then
_GREEDY = Sampling(temperature=0, top_k=0, top_p=1, min_p=0, repeat_penalty=1)
_HEAD = (
    *("data", "seed", "closing word right", "thing named", "both"),
    *("perplexity of other text before", "after", "after / before", "peak, MB", "training, s"),
)


def main(
    out: Path, seeds: int, model: Path | None = None, data: Path | None = None, limit: int = _STEPS
) -> str:
    """Train on chats of every seed and ask; return a Markdown table.

    Args:
      model: a GGUF file or a folder with weights and a chat template.
      data: a text of another kind than chats.
      limit: steps of a run.

    Raises:
      InputError: model or data are not named, or the text is too short.
    """
    if model is None or data is None:
        raise InputError("bench habit needs --model FILE.gguf and --data TEXT.")
    rows, told = [], []
    for way, beside, steps in (("chats", 0, limit), ("and text", _BESIDE, _LONGER * limit)):
        shares, ratios = [], []
        for seed in range(seeds):
            place = out / f"habit-{model.stem}-{steps}{'-text' if beside else ''}-seed{seed}"
            share, ratio, cells = _measured(place, model, data, seed, steps, beside)
            shares.append(share)
            ratios.append(ratio)
            rows.append((way, str(seed), *cells))
        told.append(
            f"{way.capitalize()}, {steps} steps: both in {bench.percent(shares)} of the answers, "
            f"perplexity at most {max(ratios):.3f} of what it was."
        )
    return (
        f"{model.name}, sequences of {_LENGTH} tokens, --mem {_CAP}, one thread, all other "
        f"settings by default; perplexity of {data.name}. {' '.join(told)}\n\n"
        f"{bench.table(_HEAD, rows)}"
    )


def _measured(
    place: Path, model: Path, data: Path, seed: int, steps: int, beside: int
) -> tuple[float, float, tuple[str, ...]]:
    """Return the share of answers with both, perplexity after over before, and cells of a row.

    Args:
      beside: characters of the text that are learned beside the chats, from its middle.
    """
    train, asked = questions(seed)
    folder = place.with_name(f"{place.name}-data")
    folder.mkdir(parents=True, exist_ok=True)
    write_chats(folder / "chats.jsonl", train)
    if beside:
        text = data.read_text("utf-8")
        middle = len(text) // 2
        (folder / "other.txt").write_text(text[middle : middle + beside], "utf-8")
    report = _train(place, folder, model, seed, steps)
    said, before, after = _heard(place, asked, data)
    closed = [one.closes(text) for one, text in zip(asked, said, strict=True)]
    named = [one.names(text) for one, text in zip(asked, said, strict=True)]
    both = [a and b for a, b in zip(closed, named, strict=True)]
    cells = (
        *(f"{sum(some)} of {len(some)}" for some in (closed, named, both)),
        *(f"{before:.3f}", f"{after:.3f}", f"{after / before:.3f}"),
        f"{report['training_peak_bytes'] / 1e6:.0f}",
        f"{report['training_seconds']:.0f}",
    )
    return statistics.mean(both), after / before, cells


def _train(place: Path, chats: Path, model: Path, seed: int, steps: int) -> dict[str, Any]:
    return bench.run(
        place,
        *("--task", "language-model", "--data", str(chats), "--model", str(model)),
        *("--mem", _CAP, "--steps", str(steps), "--length", str(_LENGTH)),
        *("--threads", "1", "--seed", str(seed)),
    )


def _heard(place: Path, asked: Sequence[Question], data: Path) -> tuple[list[str], float, float]:
    """Return the answers of a run, and the perplexity of a text before and after it.

    Each stands beside the run folder as soon as it is known, for the next time.
    """
    kept = place.parent / f"{place.name}.json"
    found: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {"said": []}

    def keep() -> None:
        write_bytes(kept, (json.dumps(found, indent=1) + "\n").encode())

    if "after" not in found:
        learned = open_speaker(place, 1)
        for one in asked[len(found["said"]) :]:
            found["said"].append(_answer(learned, one.text))
            keep()
        found["after"] = _perplexity(learned, _ids(learned, data))
        keep()
        learned.engine.close()
    if "before" not in found:
        base = open_its_base(place, 1)
        found["before"] = _perplexity(base, _ids(base, data))
        keep()
        base.engine.close()
    return found["said"], found["before"], found["after"]


def _answer(speaker: Speaker, prompt: str) -> str:
    ids = speaker.ids_of_chat([{"role": "user", "content": prompt}])
    return "".join(speaker.answer(ids, _GREEDY, _ANSWER, first_draw(0, 0)))


def _ids(speaker: Speaker, data: Path) -> np.ndarray[Any, Any]:
    """Return the first tokens of a text as windows, (windows, tokens that are predicted + 1).

    Raises:
      InputError: it is shorter.
    """
    texts = open_texts(data, None, as_texts=True)
    piece, _, _ = next(texts.documents(texts.train))
    found = speaker.tokenizer.encode(piece, add_special_tokens=False).ids
    if len(found) < (most := _WINDOWS * (_WINDOW + 1)):
        raise InputError(f"{data}: begins with {len(found)} tokens, {most} are needed; name more.")
    return np.array(found[:most], np.int64).reshape(_WINDOWS, _WINDOW + 1)


def _perplexity(speaker: Speaker, ids: np.ndarray[Any, Any]) -> float:
    engine: Any = speaker.engine  # what writes can also score, on both engines
    losses = engine.forward({"ids": ids}, [engine.parameters])
    return math.exp(float(losses.astype(np.float64).mean()))
