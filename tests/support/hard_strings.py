"""Strings that tell tokenizers apart, drawn from a seed."""

import random

_SPACES = (" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u200d")
_WORDS = (
    "the",
    "The",
    "THE",
    "tokenization",
    "isn't",
    "I'LL",
    "we've",
    "O'Neil's",
    "naïve",
    "œuvre",
)
_SCRIPTS = (
    "Ångström",
    "дом",
    "Ёлка",
    "λόγος",
    "שלום",
    "مرحبا",
    "हिन्दी",
    "ไทย",
    "한국어",
    "日本語の",
    "你好",
    "𓋼",
)
_DIGITS = ("0", "7", "42", "1999", "3.14", "1,000,000", "٣٤", "१२", "Ⅷ", "²", "½", "\uff11\uff12")
_MARKS = ("\u0301", "\u0327", "\u0323\u0307", "e\u0301", "n\u0303", "\u1100\u1161\u11a8", "\ufeff")
_PICTURES = ("😀", "👍🏽", "👨‍👩‍👧", "🇫🇷", "❤️", "☃", "→", "∑", "€", "\ufffd")
_CONTROL = (
    "\x01",
    "\x07",
    "\x1b[0m",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\ue000",
    "\uffff",
    "\U0010ffff",
)
_PRINTED = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_SIGNS = (*_PRINTED, "...", "--", "==", "://", "''", "\u2581", "Ġ")
_LOOKALIKES = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|",
    "<| im_end |>",
    "<|IM_END|>",
    "<s>",
    "</s>",
    "<unk>",
    "[INST]",
    "<0x0A>",
    "<|im_start|>user\n",
    "<file_sep>",
    "<bos>",
    "<start_of_turn>",
)
_CODE = (
    "def f(x):\n    return x  # ok\n",
    "if (a&&b) { c++; }\n",
    "\t\tfor(;;);\n",
    "SELECT * FROM t WHERE a<>'b';",
    "camelCaseName",
    "snake_case_name",
    "http://a.b/c?d=e&f=%20#g",
    "C:\\dir\\file.txt",
    '{"k": [1, 2.5e-3, null]}',
    "<div class='x'>&amp;</div>",
    "0x7fFF",
)
KINDS = (
    _SPACES,
    _WORDS,
    _SCRIPTS,
    _DIGITS,
    _MARKS,
    _PICTURES,
    _CONTROL,
    _SIGNS,
    _LOOKALIKES,
    _CODE,
)


def hard_strings(count: int, seed: int) -> list[str]:
    """Return so many different strings: pieces of all kinds, with and without spaces between.

    One in ten has single characters of anywhere in Unicode, so that no list decides what is hard.
    """
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        kinds = draw.sample(KINDS, draw.randint(1, 4))
        pieces = [draw.choice(draw.choice(kinds)) for _ in range(draw.randint(1, 12))]
        if draw.random() < 0.1:
            pieces += [_anywhere(draw) for _ in range(draw.randint(1, 6))]
            draw.shuffle(pieces)
        found["".join(piece + " " * (draw.random() < 0.3) for piece in pieces)] = None
    return list(found)


def _anywhere(draw: random.Random) -> str:
    """Return a character that is no half of one, nor NUL, which ends texts in C."""
    while True:
        number = draw.randint(1, draw.choice((0x7F, 0x24F, 0xFFFF, 0x10FFFF)))
        if not 0xD800 <= number <= 0xDFFF:
            return chr(number)
