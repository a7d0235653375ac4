"""`edge-train infer` of a language model: which answer of its data it gives to a new text."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.errors import InputError, ModelError
from edge_train.tasks.language_model.kept import about_of
from edge_train.tasks.language_model.learned import learned_in
from edge_train.tasks.language_model.speaking import Speaker, open_speaker


def infer(run: Path, texts: Sequence[str], *, as_json: bool) -> Iterator[str]:
    """Yield a line about each text, in order: its answer and the share of it among the answers.

    As in training (`--loss-on labels`), the first tokens of the answers compete and nothing else
    does; each text takes one pass.

    Args:
      texts: each a message of the user, or a prompt where the model has no template.

    Raises:
      InputError: a text is empty or too long, or the run was not trained to tell answers apart.
      ModelError, RunFolderError: the run or its base cannot be used.
    """
    run = run.expanduser()
    learned_in(run)
    answers = answers_of(run)
    if not all(text.strip() for text in texts):
        raise InputError("a text is empty; write what the model shall answer.")
    speaker = open_speaker(run, None, flag="")
    for text in texts:
        shares = _shares(speaker, text, list(answers))
        names = list(answers.values())
        order = np.argsort(-shares, kind="stable")
        if as_json:
            found = {names[n]: round(float(shares[n]), 6) for n in order}
            first = {"text": text, "class": names[order[0]], "probabilities": found}
            yield json.dumps(first, ensure_ascii=False)
        else:
            yield f"{names[order[0]]} ({100 * shares[order[0]]:.1f} %): {_shown(text)}"
    speaker.engine.close()


def answers_of(run: Path) -> Mapping[int, str]:
    """Return the token that each answer of a run's data begins with, and the answer.

    Raises:
      InputError: the run did not keep them.
    """
    about = about_of(run)
    tokens: Any = about.get("labels")
    names: Any = about.get("answers")
    if not (_is_list_of(int, tokens) and _is_list_of(str, names) and len(tokens) == len(names)):
        raise InputError(
            f"{run}: infer tells the answers of a run with --loss-on labels apart, and this run "
            f"keeps none (tokens.json); ask it with `edge-train generate {run} --prompt TEXT`."
        )
    return dict(zip(tokens, names, strict=True))


def _is_list_of(kind: type, found: Any) -> bool:
    return isinstance(found, list) and len(found) > 1 and all(type(one) is kind for one in found)


def _shares(speaker: Speaker, text: str, tokens: Sequence[int]) -> Any:
    ids = speaker.ids_of_prompt(text)
    speaker.check_length(ids)
    logits = speaker.engine.next_logits(ids)
    if not 0 <= min(tokens) <= max(tokens) < len(logits):
        raise ModelError(f"{speaker.name}: its answers are no tokens of the model (tokens.json).")
    found = logits[list(tokens)].astype(np.float64)
    if not np.isfinite(found).all():
        raise ModelError(f"{speaker.name}: its outputs are not finite; train it again.")
    shares = np.exp(found - found.max())
    return shares / shares.sum()


def _shown(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())
