"""The file of directions beside an exported model: what words are felt by, where others went."""

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.export.token_metric import Metric, effective_dimension, metric_of
from edge_train.export.token_prior import prior_of, shares_left_out
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.tensor_store import load_metadata
from edge_train.formats.token_directions import (
    DIRECTIONS,
    directions_by_kind,
    write_directions,
)
from edge_train.tasks.personalize.earlier_tokens import EarlierToken, earlier_tokens
from edge_train.tasks.personalize.inversions import ManyTokens
from edge_train.tasks.personalize.metric_draws import metric_draws
from edge_train.tasks.personalize.objective import Personalize
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.recipe import METRIC, PRIOR
from edge_train.tasks.personalize.serving import hashes_of
from edge_train.units import format_bytes, format_seconds

RANK = 64  # directions, at most
FELT = 0.999  # of the metric's trace: what the directions that are kept have of it at least
DRAWS, DRAWS_LARGE = 1000, 200
_TOGETHER = 32  # samples in a call of a small model


@dataclass(frozen=True)
class Moves:
    """How far tokens went from their class words, by block (moves, width), and those words."""

    blocks: Mapping[str, NDArray[np.float64]]
    words: tuple[str, ...]


def copy_directions(model: ModelFolder, folder: Path, say: Callable[[str], None]) -> None:
    """Copy the file that lies beside a model folder, if one does that was made with its weights."""
    path = model.path / DIRECTIONS
    if not path.is_file():
        return
    try:
        directions_by_kind(path, hashes_of(model)[0])
    except ModelError:
        say(f"{path} is left aside: damaged, or of other weights; --directions measures it anew")
    else:
        shutil.copyfile(path, folder / DIRECTIONS)


def moves_of(job: TokenJob, tokens: Path) -> Moves:
    """Return the moves of the tokens in a folder.

    Raises:
      InputError: one cannot be read, or its class word is not the model's.
    """
    widths = {name: block.shape[1] for name, block in job.start.items()}
    found = earlier_tokens(tokens, widths)
    starts = {word: _start(job, word, found) for word in {token.class_word for token in found}}
    blocks = {
        name: np.concatenate(
            [token.vectors[name] - starts[token.class_word][name] for token in found]
        ).astype(np.float64)
        for name in widths
    }
    words = tuple(t.class_word for t in found for _ in next(iter(t.vectors.values())))
    return Moves(blocks, words)


def _start(job: TokenJob, word: str, tokens: Sequence[EarlierToken]) -> dict[str, Array]:
    """Return the mean vectors of a word, by block, (width,)."""
    model, rows = job.model, {}
    for name, component, tokenizer in zip(
        job.start, model.text_encoders, job.tokenizers.values(), strict=True
    ):
        ids = tokenizer.word_ids(word)
        if not ids:
            own = next(token.name for token in tokens if token.class_word == word)
            raise InputError(f"class word {word!r} of token {own!r} is empty for this model.")
        rows[name] = model.embedding_rows(component, ids).mean(axis=0)
    return rows


def make_directions(
    job: TokenJob,
    runtime: ManyTokens,
    task: Personalize,
    path: Path,
    *,
    moves: Moves | None,
    large: bool,
    say: Callable[[str], None],
) -> None:
    """Measure the metric at the class word, make a prior of earlier moves, write both.

    What lies beside the model of a kind that is not made anew is kept.

    Args:
      task: whose samples the metric is measured on.
      moves: of earlier tokens; None: no prior is made.
      large: the model takes seconds for a sample.
    """
    count, together = (DRAWS_LARGE, 1) if large else (DRAWS, _TOGETHER)
    say(f"measuring what a word's numbers do to predictions: {count} draws")
    began = time.monotonic()

    def watch(done: int) -> None:
        if large and done == 1:
            say(f"  about {format_seconds(count * (time.monotonic() - began))}")

    drawn = metric_draws(runtime, task, job.start, count, together=together, watch=watch)
    matrices: dict[str, dict[str, Array]] = {METRIC: {}}
    facts: dict[str, object] = {"draws": count}
    for name, draws in drawn.items():
        found = metric_of(draws.astype(np.float64))
        rank = rank_of(found)
        matrices[METRIC][name] = found.vectors[:rank].astype(np.float32)
        dimension, error = effective_dimension(draws.astype(np.float64))
        facts[name] = {"effective_dimension": dimension, "error": error, "rank": rank}
        say(
            f"  {name}: {dimension:.1f} +- {error:.1f} effective dimensions of {draws.shape[1]}; "
            f"{rank} directions hold {100 * found.values[:rank].sum() / found.values.sum():.1f} % "
            "of what is felt"
        )
        if moves is not None:
            own = moves.blocks[name]
            matrices.setdefault(PRIOR, {})[name] = prior_of(own, found.matrix, rank).rows.astype(
                np.float32
            )
            left_out = shares_left_out(own, found.matrix, np.arange(len(own)), rank)
            facts[f"{name} prior"] = {"moves": len(own), "share_left_out": left_out.mean()}
            say(f"  {len(own)} earlier moves: {100 * left_out.mean():.0f} % of one lies inside the")
            say("  directions of the others")
    assert isinstance(job.model, ModelFolder), "an artifact has no gradients"
    kept, told = _beside(job.model, matrices.keys(), say)
    matrices, facts = {**kept, **matrices}, {**told, **facts}
    write_directions(path, matrices, job.model.sha256(), json.dumps(facts))
    say(f"  {path.name}: {format_bytes(path.stat().st_size)}")


def _beside(
    model: ModelFolder, made: Collection[str], say: Callable[[str], None]
) -> tuple[dict[str, dict[str, Array]], dict[str, object]]:
    """Return matrices beside a model of kinds that were not made anew, and the facts about them.

    A file that is damaged or of other weights is said and not kept.
    """
    path = model.path / DIRECTIONS
    if not path.is_file():
        return {}, {}
    try:
        found = directions_by_kind(path, model.sha256())
        facts = json.loads(load_metadata(path).get("facts", "{}"))
    except (ModelError, RunFolderError, ValueError) as error:
        say(f"  what lies beside the model is not kept: {error}")
        return {}, {}
    kept = {kind: own for kind, own in found.items() if kind not in made}
    for kind in kept:
        say(f"  {kind}: kept, from {path}")
    told = {name: fact for name, fact in facts.items() if name.partition(" ")[2] in kept}
    return kept, told


def rank_of(metric: Metric) -> int:
    """Return how many directions are kept: `FELT` of the trace, at most `RANK`."""
    shares = np.cumsum(metric.values) / metric.values.sum()
    return min(RANK, int(np.searchsorted(shares, FELT)) + 1)
