"""Words of a tokenizer, and prompts that read back as the same tokens; all others are refused."""

import numpy as np
import pytest
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

from edge_train.errors import InputError
from edge_train.formats.prompt_words import Place, PromptWords, prompt_words, reads_as
from edge_train.rng import Key


def byte_level(words):
    """A byte-level BPE that has these words behind a space as one token each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    merges = []
    for word in words:
        built = word[0]
        for letter in word[1:]:
            if (built, letter) not in merges:
                merges.append((built, letter))
            built += letter
            vocabulary.setdefault(built, len(vocabulary))
        merges.append(("\u0120", word))
        vocabulary[f"\u0120{word}"] = len(vocabulary)
    found = Tokenizer(models.BPE(vocabulary, merges))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    return found


PLACE = Place("system\n", "\nuser", 7)


def test_only_whole_words_of_letters_may_be_drawn():
    found = prompt_words(byte_level(["cat", "sun"]), PLACE)
    texts = {found.tokenizer.decode([one]) for one in found.inner.tolist()}
    assert {" cat", " sun"} <= texts
    assert all(text[0] == " " and text[1:].isalpha() for text in texts)
    firsts = {found.tokenizer.decode([one]) for one in found.first.tolist()}
    assert {"cat", "sun"} <= firsts and not any(" " in text for text in firsts)


def test_words_of_the_data_alone_may_be_drawn():
    tokenizer = byte_level(["cat", "sun"])
    used = set(tokenizer.encode("the cat").ids)
    found = prompt_words(tokenizer, PLACE, used)
    assert [tokenizer.decode([one]) for one in found.inner.tolist()] == [" cat"]


def test_a_prompt_that_would_be_read_as_other_tokens_is_refused():
    tokenizer = byte_level(["cat", "sun"])
    ids = tokenizer.encode("cat sun").ids
    assert reads_as(tokenizer, PLACE, "cat sun", ids)
    split = [tokenizer.token_to_id(letter) for letter in "cat"]
    assert not reads_as(tokenizer, PLACE, "cat", split)  # it is one token
    words = prompt_words(tokenizer, PLACE)
    assert words.admits(ids) and not words.admits(split)


def test_a_prompt_that_grows_together_with_what_is_around_it_is_refused():
    # "o\n" is one token of this tokenizer, so a word in front of a new line may lose its end
    tokenizer = Tokenizer(
        models.BPE({"g": 0, "o": 1, "go": 2, "\n": 3, "go\n": 4}, [("g", "o"), ("go", "\n")])
    )
    tokenizer.decoder = tokenizers.decoders.Fuse()
    assert not reads_as(tokenizer, Place("", "\n", 0), "go", [2])
    assert reads_as(tokenizer, Place("", "", 0), "go", [2])


def test_proposals_follow_from_the_key_and_never_repeat_what_stands_there():
    words = prompt_words(byte_level(["cat", "sun", "dog", "sea", "ice"]), PLACE)
    ids = words.tokenizer.encode("cat sun").ids
    found = words.propose(Key(0, 3), ids, 1, 3)
    np.testing.assert_array_equal(found, words.propose(Key(0, 3), ids, 1, 3))
    assert len(set(found.tolist())) == 3 and ids[1] not in found
    assert all(words.admits([ids[0], one]) for one in found.tolist())
    assert words.admits(words.start(0, 4))


def test_a_tokenizer_without_words_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "12": 1, "34": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="no token that is a whole word"):
        prompt_words(tokenizer, PLACE)
    with pytest.raises(InputError, match="--words vocabulary"):
        prompt_words(byte_level(["cat"]), PLACE, used=set())


def test_a_tokenizer_whose_words_do_not_read_back_begins_with_no_random_prompt():
    tokenizer = byte_level(["cat", "sun"])
    wrong = Place("system\n", "\nuser", 3)  # other tokens stand there
    words = prompt_words(tokenizer, wrong)
    assert isinstance(words, PromptWords)
    with pytest.raises(InputError, match="--prompt-start"):
        words.start(0, 2)
    assert len(words.propose(Key(0, 0), tokenizer.encode("cat sun").ids, 1, 4)) == 0
