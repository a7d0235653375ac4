"""The index finds what an exhaustive search finds, and says which of its files is damaged."""

import json

import numpy as np
import pytest

from edge_train.arrays.projections import Folded
from edge_train.errors import RunFolderError
from edge_train.tasks.retrieve.finding import Index
from edge_train.tasks.retrieve.index import CODES, HEAD, write_index

WIDTH, PASSAGES, TOKENS = 16, 1500, 12
TEXTS = "passages.jsonl"


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


class Source:
    def __init__(self, vectors):
        self.vectors = vectors

    def tokens(self, first, last):
        count = last - first
        return self.vectors[first:last].reshape(-1, WIDTH), np.arange(count + 1) * TOKENS

    def runs(self):
        return ((start, min(start + 100, PASSAGES)) for start in range(0, PASSAGES, 100))


@pytest.fixture(scope="module")
def vectors():
    draw = np.random.default_rng(0)
    subjects = unit(draw.standard_normal((60, WIDTH)))
    near = subjects[draw.integers(60, size=(PASSAGES, TOKENS))]
    return unit(near + 0.35 * draw.standard_normal(near.shape) / np.sqrt(WIDTH) * 2)


@pytest.fixture
def folder(tmp_path, vectors):
    lines = [
        json.dumps({"name": str(n), "title": "", "text": f"text {n}"}) for n in range(PASSAGES)
    ]
    content = [f"{line}\n".encode() for line in lines]
    (tmp_path / TEXTS).write_bytes(b"".join(content))
    ends = np.concatenate([[0], np.cumsum([len(line) for line in content])]).astype(np.int64)
    head = Folded("silu", np.eye(WIDTH, dtype=np.float32))
    counts = np.full(PASSAGES, TOKENS)
    owners = np.arange(PASSAGES, dtype=np.int32)
    write_index(tmp_path, Source(vectors), counts, owners, ends, head, "0" * 64)
    return tmp_path


def test_pruning_keeps_nearly_all_of_the_exhaustive_top_ten(folder, vectors):
    index, draw, shared, kept = Index(folder, TEXTS), np.random.default_rng(1), [], []
    every = np.arange(PASSAGES)
    for _ in range(20):
        query = unit(vectors[draw.integers(PASSAGES), :5] + 0.2 * draw.standard_normal((5, WIDTH)))
        exact = np.einsum("qw,ptw->qpt", query, vectors).max(axis=2).sum(axis=0)
        coded = index.scores(query, every)
        assert np.abs(coded - exact).max() < 0.1  # codes of a byte
        some = index.candidates(query, probed=8, most=400)
        assert len(some) == 400
        best = np.argsort(-coded, kind="stable")[:10]
        kept.append(len(set(some.tolist()) & set(best.tolist())) / 10)
        hits = index.search(query, 10)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        wanted = np.argsort(-exact, kind="stable")[:10]
        shared.append(len({hit.document for hit in hits} & set(wanted.tolist())) / 10)
    # subjects of 25 passages nearly alike, so that the tenth is seldom far from the eleventh; what
    # real texts lose is measured by `edge-train bench search-speed`
    assert np.mean(kept) >= 0.9
    assert np.mean(shared) >= 0.85


def test_codes_give_tokens_back_to_half_a_code(folder, vectors):
    index = Index(folder, TEXTS)
    tokens, starts = index.tokens([3, 700])
    assert starts.tolist() == [0, TOKENS, 2 * TOKENS]
    wanted = vectors[[3, 700]].reshape(-1, WIDTH)
    scale = index._quantizer.scale
    # a residual beyond those of the sample is cut off; here all tokens are in it
    assert (np.abs(tokens - wanted) <= 0.51 * scale + 1e-6).all()


def test_an_index_is_the_same_bytes_each_time(folder, vectors, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    index = Index(folder, TEXTS)
    counts, owners = np.full(PASSAGES, TOKENS), np.arange(PASSAGES, dtype=np.int32)
    write_index(other, Source(vectors), counts, owners, index._lines, index.head, "0" * 64)
    for name in (HEAD, CODES):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", [HEAD, CODES, TEXTS])
def test_a_file_that_is_cut_short_or_gone_is_named(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(RunFolderError, match=name):
        Index(folder, TEXTS)
    (folder / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        Index(folder, TEXTS)


def test_a_changed_byte_is_noticed_where_it_is_read(folder, vectors):
    for name, place in ((HEAD, -5), (CODES, 40)):
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 0xFF
        (folder / name).write_bytes(content)
        with pytest.raises(RunFolderError, match=f"{name}.*damaged|checksum"):
            Index(folder, TEXTS).tokens([0])
        content[place] ^= 0xFF
        (folder / name).write_bytes(content)
    content = (folder / TEXTS).read_bytes()
    (folder / TEXTS).write_bytes(b"{" + content[1:].replace(b'"', b"'", 2))
    with pytest.raises(RunFolderError, match="line 1 is damaged"):
        Index(folder, TEXTS).text(0)
