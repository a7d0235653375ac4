"""Which older coding a text is in: Cyrillic, Chinese, Japanese, Korean, Greek, Hebrew and others.

`charset-normalizer` ranks the codings by how text in them looks. Its first is believed only with a
clear lead over the second: a wrong guess trains on wrong letters, and a short text has no lead.
"""

from collections.abc import Sequence
from typing import Any

SAMPLE_BYTES = 1 << 14  # of lines with letters beyond ASCII; more tells nothing new
_CHUNK_BYTES = 512
_FEWEST = 60  # letters beyond ASCII, or any coding may look right
_LEAD_CHAOS, _LEAD_COHERENCE = 0.04, 0.1  # over the second, on scales from 0 to 1
_LEAD_LATIN = 0.03  # of either, where only a few letters are others
_COHERENCE = 0.2  # with the letters of a language, of codings in which all bytes are letters
_WESTERN = "cp1252"

# As Python knows them: as people call them. Each reads what its narrower relatives wrote: GB18030
# reads GBK and GB2312, cp949 EUC-KR, cp932 Shift-JIS, cp950 Big5, Windows' ones most of ISO-8859.
NAMES = {
    "gb18030": "GBK (GB18030)",
    "cp950": "Big5",
    "cp932": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "cp949": "EUC-KR (Windows-949)",
    "cp1251": "Windows-1251",
    "koi8_r": "KOI8-R",
    "koi8_u": "KOI8-U",
    "iso8859_5": "ISO-8859-5",
    "cp866": "DOS-866",
    "cp1253": "Windows-1253",
    "iso8859_7": "ISO-8859-7",
    "cp1255": "Windows-1255",
    "cp1256": "Windows-1256",
    "iso8859_6": "ISO-8859-6",
    "tis_620": "TIS-620",
    "cp1250": "Windows-1250",
    "iso8859_2": "ISO-8859-2",
    "cp1254": "Windows-1254",
    "cp1257": "Windows-1257",
    _WESTERN: "Windows-1252",
}
_WIDE = ("gb18030", "cp950", "cp932", "euc_jp", "cp949")
_CENTRAL = ("Polish", "Czech", "Slovak", "Hungarian", "Croatian", "Slovene", "Romanian")
# Latin letters look right in each of these; only a language that needs one tells it.
_LATIN = {
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1254": ("Turkish",),
    "cp1257": ("Lithuanian", "Latvian", "Estonian"),
}


def coding_by_letters(sample: bytes) -> str:
    """Return the coding that lines of a text are surely in, as Python names it; empty: unsure.

    Args:
      sample: whole lines with bytes beyond ASCII, `SAMPLE_BYTES` at most.
    """
    from charset_normalizer import from_bytes  # not for Unicode

    sample = b"".join(dict.fromkeys(sample.splitlines(keepends=True)))  # twice tells nothing new
    ranked = from_bytes(
        sample,
        steps=max(1, len(sample) // _CHUNK_BYTES),
        chunk_size=_CHUNK_BYTES,
        cp_isolation=list(NAMES),
        preemptive_behaviour=False,  # words such as "charset=utf-8" in a text say nothing of it
        enable_fallback=False,
    )
    found = _unlike(sample, ranked)
    if not found:
        return ""
    best = str(found[0].encoding)
    text = sample.decode(best)
    if sum(not one.isascii() for one in text) < _FEWEST:
        return ""
    if best in _LATIN:
        differs = text != sample.decode(_WESTERN, "replace")
        told = differs and found[0].language in _LATIN[best]
        return best if told and _leads(found, _LEAD_LATIN, _LEAD_LATIN) else ""
    if best not in _WIDE and found[0].coherence < _COHERENCE:
        return ""
    return best if _leads(found, _LEAD_CHAOS, _LEAD_COHERENCE) else ""


def _leads(found: Sequence[Any], chaos: float, coherence: float) -> bool:
    """Return whether the first looks better than the second, by so much in either measure."""
    if len(found) == 1:
        return True
    first, second = found
    return bool(
        second.chaos - first.chaos >= chaos or first.coherence - second.coherence >= coherence
    )


def _unlike(sample: bytes, ranked: Any) -> Sequence[Any]:
    """Return the first coding, and the best of those that read other letters."""
    found: list[Any] = []
    for one in ranked:
        text = sample.decode(one.encoding, "replace")
        if not found or text != sample.decode(found[0].encoding, "replace"):
            found.append(one)
        if len(found) == 2:
            break
    return found
