"""Ids equal those of transformers' CLIPTokenizer, and damaged folders are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from edge_train.errors import InputError, ModelError
from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer

LENGTH = 24
FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
TINY = ROOT / "edge_train/data/tiny_sd/tokenizer"

TEXTS = [
    "",
    " ",
    "a photo of a dog",
    "  A   PHOTO\n\tof a Dog ",
    "it's the dog's bed, we'll see; they're 12 and I've 3, isn't it?",
    "a.b,c!d?e (f) [g] {h} 100% <|endoftext|> and <|StartOfText|> end",
    "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m stra\u00dfe \u0130stanbul \u03a3\u03a3 \ufb01ne",
    "\U0001f436 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u72ac\u306e\u5199\u771f \u0441\u043e\u0431\u0430\u043a\u0430 \u0663\u00bd",
    "non\u00a0breaking\u2003and\u200bzero width \u0007 bell \x00 nul",
    "!!! wow! !",
    "photo " * 40,
    "x" * 100,
    "dog-park_2024 http://a.b/c?d=e&f #tag @me",
]
PLACED = [
    "{}",
    "a photo of {}",
    "{}'s bed",
    "a photo of {}, asleep",
    "the {}s and{}and {} !{}!",
    "  {}  {}  ",
    "caf\u00e9 {} \U0001f436{}\U0001f436",
    "{} " + "photo " * 40,
]

STYLES: dict[str, dict[str, Any]] = {
    "one": {  # Stable Diffusion 1.x
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": LENGTH,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "pad_token": LAST,
            **{
                f"{name}_token": {
                    "__type": "AddedToken",
                    "content": content,
                    "lstrip": False,
                    "normalized": True,
                    "rstrip": False,
                    "single_word": False,
                }
                for name, content in (("bos", FIRST), ("eos", LAST), ("unk", LAST))
            },
        },
        "special_tokens_map.json": {
            "bos_token": {
                "content": FIRST,
                "lstrip": False,
                "normalized": True,
                "rstrip": False,
                "single_word": False,
            },
            "eos_token": LAST,
            "unk_token": LAST,
            "pad_token": LAST,
        },
    },
    "two": {  # Stable Diffusion 2.x: the map overrides the padding
        "tokenizer_config.json": {"model_max_length": LENGTH, "pad_token": LAST},
        "special_tokens_map.json": {"bos_token": FIRST, "eos_token": LAST, "pad_token": "!"},
    },
    "xl": {  # the second tokenizer of Stable Diffusion XL
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": LENGTH,
            "pad_token": "!",
            "bos_token": FIRST,
            "eos_token": LAST,
            "unk_token": LAST,
            "added_tokens_decoder": {
                "0": {
                    "content": "!",
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                },
            },
        },
        "special_tokens_map.json": {"pad_token": LAST},
    },
    "old": {  # saved after somebody learned a token
        "tokenizer_config.json": {"model_max_length": LENGTH},
        "special_tokens_map.json": {"pad_token": LAST},
        "added_tokens.json": {"<cat-toy>": 0},
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a vocabulary laid out as CLIP's: bytes, byte ends, merges, ends."""
    folder = tmp_path_factory.mktemp("trained")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters.insert(0, letters.pop(letters.index("!")))
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    text = "a photo of the dog and the dogs asleep on grass it's we'll caf photos isn't wow"
    learner.train_from_iterator([text] * 3, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words = [*dict.fromkeys(words), FIRST, LAST]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make(trained: Path, folder: Path, style: str) -> Path:
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    for name, content in STYLES[style].items():
        if name == "added_tokens.json":
            size = len(json.loads((folder / "vocab.json").read_text()))
            content = {word: size + number for word, number in content.items()}
        (folder / name).write_text(json.dumps(content))
    return folder


def oracle(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTokenizer.from_pretrained(folder)


def oracle_ids(reference: Any, text: str, length: int) -> list[int]:
    found = reference(text, padding="max_length", truncation=True, max_length=length)
    return list(found.input_ids)


@pytest.mark.parametrize("style", [*STYLES, "saved", "tiny"])
def test_ids_equal_those_of_transformers(trained: Path, tmp_path: Path, style: str) -> None:
    if style == "tiny":
        if not TINY.exists():
            pytest.skip("the embedded model is not here")
        folder = TINY
    else:
        folder = make(trained, tmp_path / "a", "xl" if style == "saved" else style)
    reference = oracle(folder)
    if style == "saved":  # today's transformers writes tokenizer.json alone
        folder = tmp_path / "b"
        reference.save_pretrained(folder)
        assert not (folder / "vocab.json").exists()
        reference = oracle(folder)
    tokenizer = PromptTokenizer.from_folder(folder)
    assert tokenizer.max_length == reference.model_max_length
    assert str(tokenizer.backend.get_added_tokens_decoder()) == str(reference.added_tokens_decoder)
    for text in TEXTS:
        expected = oracle_ids(reference, text, tokenizer.max_length)
        found = tokenizer.encode(text, 1)
        assert found.dtype == np.int64
        assert found.tolist() == expected, text
        assert tokenizer.word_ids(text) == reference(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("token", ["<x>", "[My-Dog]", "sks"])
def test_placeholder_equals_an_added_token_of_transformers(
    trained: Path, tmp_path: Path, style: str, vectors: int, token: str
) -> None:
    folder = make(trained, tmp_path, style)
    tokenizer, reference = PromptTokenizer.from_folder(folder), oracle(folder)
    spellings = [token, *(f"{token}_{number}" for number in range(1, vectors))]
    size = len(reference)
    assert reference.add_tokens(spellings) == vectors
    for prompt in PLACED:
        written = prompt.replace("{}", " ".join(spellings))  # as diffusers writes several vectors
        expected = oracle_ids(reference, written, LENGTH)
        expected = [size - 1 - number if number >= size else number for number in expected]
        assert tokenizer.encode(prompt, vectors).tolist() == expected, prompt


@pytest.mark.slow  # imports diffusers and torch
def test_spelling_of_several_vectors_is_that_of_diffusers(trained: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers.loaders.textual_inversion")
    folder = make(trained, tmp_path, "xl")
    tokenizer, reference = PromptTokenizer.from_folder(folder), oracle(folder)
    size = len(reference)
    reference.add_tokens(["<x>", "<x>_1", "<x>_2"])
    mixin = diffusers.TextualInversionLoaderMixin()
    for prompt in ("a photo of {}", "{}, asleep!", "the {}'s dog"):
        written = mixin.maybe_convert_prompt(prompt.replace("{}", "<x>"), reference)
        expected = oracle_ids(reference, written, LENGTH)
        expected = [size - 1 - number if number >= size else number for number in expected]
        assert tokenizer.encode(prompt, 3).tolist() == expected


def test_padding_is_the_one_the_folder_names(trained: Path, tmp_path: Path) -> None:
    last = {
        style: int(
            PromptTokenizer.from_folder(make(trained, tmp_path / style, style)).encode("", 1)[-1]
        )
        for style in STYLES
    }
    vocabulary = json.loads((trained / "vocab.json").read_text())
    assert last == {"one": vocabulary[LAST], "two": 0, "xl": 0, "old": vocabulary[LAST]}


def test_placeholder_at_the_very_end_survives_and_beyond_it_is_refused(
    trained: Path, tmp_path: Path
) -> None:
    tokenizer = PromptTokenizer.from_folder(make(trained, tmp_path, "one"))
    room = LENGTH - 2
    ids = tokenizer.encode("1" * (room - 3) + "{}", 3)
    assert ids[-4:].tolist() == [-1, -2, -3, tokenizer.eos]
    for prompt in ("1" * (room - 2) + "{}", "1" * room + "{}", "{}" + "1" * room + "{}"):
        with pytest.raises(
            InputError, match=rf"the prompt '.*1.*' has \d+ tokens .*limit of {room}"
        ):
            tokenizer.encode(prompt, 3)


def test_used_entries_are_sorted_and_without_vectors(trained: Path, tmp_path: Path) -> None:
    tokenizer = PromptTokenizer.from_folder(make(trained, tmp_path, "two"))
    used = tokenizer.token_ids(["a photo of {}", "a dog"], 2)
    words = [number for word in ("a", "photo", "of", "dog") for number in tokenizer.word_ids(word)]
    assert used == sorted({*words, tokenizer.bos, tokenizer.eos, tokenizer.pad})
    assert tokenizer.token_ids([], 2) == []


def test_token_that_the_model_knows_is_refused(trained: Path, tmp_path: Path) -> None:
    tokenizer = PromptTokenizer.from_folder(make(trained, tmp_path, "old"))
    for known in ("dog", "Dog", "!", LAST, "<cat-toy>", "pho"):
        assert tokenizer.contains(known)
        with pytest.raises(InputError, match="already in the vocabulary of this model; choose"):
            tokenizer.check_new_token(known)
    for new in ("<my-dog>", "[trigger]", "my dog", "zzzz"):
        assert not tokenizer.contains(new)
        tokenizer.check_new_token(new)


def test_no_vectors_is_a_mistake_of_the_caller(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        PromptTokenizer.from_folder(make(trained, tmp_path, "one")).encode("{}", 0)


def test_text_that_is_not_unicode_is_refused(trained: Path, tmp_path: Path) -> None:
    tokenizer = PromptTokenizer.from_folder(make(trained, tmp_path, "one"))
    with pytest.raises(InputError, match="not valid text"):
        tokenizer.encode("a dog \udcff", 1)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_missing_file_is_named(trained: Path, tmp_path: Path, name: str) -> None:
    folder = make(trained, tmp_path, "one")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing; download the model again\."):
        PromptTokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", ""),
        ("vocab.json", '{"a": 0'),
        ("vocab.json", "[1, 2]"),
        ("vocab.json", '{"a": -1}'),
        ("vocab.json", "{}"),
        ("merges.txt", "#version: 0.2\nonlyone\n"),
        ("merges.txt", "#version: 0.2\nz\u00e9 q\n"),
        ("merges.txt", "a b c\n"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]]"),
        ("tokenizer_config.json", "3"),
        ("tokenizer_config.json", '{"model_max_length": 77, "added_tokens_decoder": 3}'),
        ("special_tokens_map.json", '{"bos_token": 3}'),
        ("special_tokens_map.json", "nothing"),
        ("tokenizer.json", '{"model": {"type": "BPE", "end_of_word_suffix": "</w>"}}'),
        ("tokenizer.json", "{{"),
    ],
)
def test_damaged_file_is_refused_in_one_sentence(
    trained: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = make(trained, tmp_path, "one")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"download the model again\.$"):
        PromptTokenizer.from_folder(folder)


@pytest.mark.parametrize("length", [None, 10**30, 2, "77"])
def test_length_that_clip_cannot_have_is_refused(
    trained: Path, tmp_path: Path, length: object
) -> None:
    folder = make(trained, tmp_path, "one")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: model_max_length is .*write 77"):
        PromptTokenizer.from_folder(folder)


def test_other_kinds_of_tokenizer_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = make(trained, tmp_path, "two")
    model = {"type": "WordPiece", "vocab": {"a": 0}}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(ModelError, match=r"tokenizer\.json: .*WordPiece.*CLIPTokenizer"):
        PromptTokenizer.from_folder(folder)
    config = {"model_max_length": 77, "tokenizer_class": "T5Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"T5Tokenizer.*Stable Diffusion"):
        PromptTokenizer.from_folder(folder)
