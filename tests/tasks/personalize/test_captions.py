"""Where the learned token stands in a caption, and which tokens can name a file."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.tasks.personalize.captions import (
    OBJECT_TEMPLATES,
    STYLE_TEMPLATES,
    captions_for,
    file_name_of,
    place,
)
from edge_train.tasks.personalize.photos import Photo


def photo(name: str, caption: str | None) -> Photo:
    return Photo(name, np.zeros((1, 1, 3), np.uint8), caption, "")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of {} on grass", "a photo of {} on grass"),
        ("a photo of <my-dog> on grass", "a photo of {} on grass"),
        ("a photo of <My-Dog>'s bed", "a photo of {}'s bed"),
        ("[trigger] and <embedding>, {}", "{} and {}, {}"),
        ("<my-dog><my-dog>s", "{}{}s"),
        ("{} with another dog", "{} with another dog"),
    ],
)
def test_marked_place_is_found_in_every_spelling(caption: str, expected: str) -> None:
    assert place(caption, "<my-dog>", "dog") == expected


@pytest.mark.parametrize(
    ("caption", "class_word", "expected"),
    [
        ("a dog and a dog", "dog", "a {} and a dog"),
        ("Dog, asleep", "dog", "{}, asleep"),
        ("hotdogs beside my dog.", "dog", "hotdogs beside my {}."),
        ("my coffee  mug", "coffee mug", "my {}"),
        ("a dog's life", "Dog", "a {}'s life"),
    ],
)
def test_class_word_becomes_the_place_where_none_is_marked(
    caption: str, class_word: str, expected: str
) -> None:
    assert place(caption, "<my-dog>", class_word) == expected


@pytest.mark.parametrize(
    ("caption", "class_word", "expected"),
    [
        ("a photo of a my-bag", "bag", "a photo of a {}"),
        ("My-Bag and my-bag, a bag", "bag", "{} and {}, a bag"),
        ("a my-bag bag on grass", "bag", "a {} bag on grass"),
        ("{} beside my-bag", "bag", "{} beside my-bag"),  # marked already
        ("my-bag-like bag", "bag", "my-bag-like {}"),
        ("not-my-bag, a bag", "bag", "not-my-bag, a {}"),
    ],
)
def test_token_without_its_brackets_is_the_place_before_the_class_is(
    caption: str, class_word: str, expected: str
) -> None:
    assert place(caption, "<my-bag>", class_word) == expected


def test_name_that_is_a_word_of_the_class_is_the_place_before_it_or_without_it() -> None:
    assert place("a red bag", "<red>", "red bag") == "a {}"
    assert place("a red red bag", "<red>", "red bag") == "a {} red bag"
    assert place("in red", "<red>", "red bag") == "in {}"
    assert place("a dog and a dog", "<dog>", "dog") == "a {} and a dog"


def test_class_word_inside_of_hyphens_is_no_place() -> None:
    assert place("hot-dog or dog-bed, a dog - asleep", "<d>", "dog").endswith("a {} - asleep")
    assert place("a t-shirt", "<d>", "t-shirt") == "a {}"
    with pytest.raises(InputError, match="names neither <d> nor 'dog'"):
        place("a hot-dog", "<d>", "dog")


def test_token_without_brackets_is_not_found_inside_of_words() -> None:
    assert place("sks asks", "sks", "dog") == "{} asks"
    assert place("a dog that asks", "sks", "dog") == "a {} that asks"


@pytest.mark.parametrize("caption", ["asleep", "two dogs", "a { } dogs", "{object}"])
@pytest.mark.parametrize("class_word", ["dog", ""])
def test_caption_without_a_place_is_refused_by_name(caption: str, class_word: str) -> None:
    with pytest.raises(
        InputError, match=r"^the caption of dog1\.jpg: .*write for example 'a photo of <my-dog>'"
    ):
        place(caption, "<my-dog>", class_word, "dog1.jpg")


def test_own_caption_stands_alone_and_others_draw_from_the_templates() -> None:
    photos = [photo("a.jpg", "my dog"), photo("b.jpg", None)]
    assert captions_for(photos, "<d>", "dog", "object") == (("my {}",), OBJECT_TEMPLATES)
    assert captions_for(photos, "<d>", "dog", "style") == (("my {}",), STYLE_TEMPLATES)


def test_error_in_a_caption_names_its_photo() -> None:
    with pytest.raises(InputError, match=r"the caption of a\.jpg: 'asleep' names neither <d> nor"):
        captions_for([photo("a.jpg", "asleep")], "<d>", "dog", "object")


@pytest.mark.parametrize("templates", [OBJECT_TEMPLATES, STYLE_TEMPLATES])
def test_templates_are_distinct_and_have_one_place(templates: tuple[str, ...]) -> None:
    assert len(set(templates)) == len(templates)
    assert all(template.count("{}") == 1 for template in templates)
    assert not any(set(template.replace("{}", "")) & set("{}<>[]") for template in templates)


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("<my-dog>", "my-dog"),
        ("[v1.5]", "v1.5"),
        ("sks", "sks"),
        ("<\u043a\u043e\u0442>", "\u043a\u043e\u0442"),
        ("<_x_>", "_x_"),
    ],
)
def test_token_names_a_file_without_its_brackets(token: str, name: str) -> None:
    assert file_name_of(token) == name


@pytest.mark.parametrize(
    "token",
    [
        "",
        "<>",
        "[]",
        "{}",
        "<{}>",
        "<my dog>",
        " dog",
        "dog\n",
        "<a/b>",
        "a\\b",
        "<a\0b>",
        "..",
        "<a..b>",
        "<.hidden>",
        "<-x>",
        "<x.>",
        "<<x>>",
        "<x",
        "a!",
        "<a:b>",
        "\ud800",
    ],
)
def test_unsafe_token_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="cannot be a token"):
        file_name_of(token)


def test_long_token_is_refused_with_its_size() -> None:
    assert len(file_name_of("<" + "x" * 64 + ">")) == 64
    with pytest.raises(InputError, match="has 65 bytes, the limit is 64"):
        file_name_of("<" + "x" * 65 + ">")
