"""The shapes of a language model's blocks from the headers of its files, without an engine."""

import re
from collections.abc import Mapping

from edge_train.formats.language_folder import LanguageFolder

# Kinds whose files hold every block under its own name, and whether the output layer is the table
# of the words where the configuration does not say.
_TIED_BY_DEFAULT: Mapping[str, bool] = {
    **dict.fromkeys(
        (
            *("bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2"),
            *("gpt_bigcode", "gpt_neo", "mamba", "mpt", "opt", "smollm3", "starcoder2"),
            *("xglm",),
        ),
        True,
    ),
    **dict.fromkeys(
        (
            *("codegen", "glm", "gptj", "granite", "llama", "mistral", "olmo", "olmo2"),
            *("phi", "phi3", "qwen2", "qwen3", "stablelm"),
        ),
        False,
    ),
}
_HEADS = ("lm_head.weight", "embed_out.weight")
# Numbers that older files hold and nothing trains.
_MASK_SIDES = 4
_MATRIX_SIDES = 2
_NUMBERED = re.compile(r"\.\d+\.")  # names of what is repeated
_TABLE = re.compile(r"embed|(^|\.)w[tp]e\.")
_NO_BLOCKS = (".attn.bias", ".masked_bias", ".rotary_emb.inv_freq", ".attention.bias")


def shapes_in_files(folder: LanguageFolder) -> dict[str, tuple[int, ...]] | None:
    """Return the shape of every trained block by name, tied ones once.

    None where only the network itself tells: of a kind that is not listed here, of a folder
    without weights or without a table of its words, and where files hold an output layer that the
    configuration ties.
    """
    tied = _TIED_BY_DEFAULT.get(str(folder.config.get("model_type")))
    if tied is None or not folder.files:
        return None
    found = {
        name: entry.shape
        for file in folder.files
        for name, entry in file.entries.items()
        if not name.endswith(_NO_BLOCKS) and len(entry.shape) < _MASK_SIDES
    }
    tied = bool(folder.config.get("tie_word_embeddings", tied))
    has_head = any(name in found for name in _HEADS)
    words = folder.config.get("vocab_size")
    has_table = any(len(shape) > 1 and words in shape for shape in found.values())
    return None if (tied and has_head) or not has_table else found


def heads_of(shapes: Mapping[str, tuple[int, ...]], vocabulary: int) -> frozenset[str]:
    """Return the output layer of a language model by the shapes of its blocks: a name, or none.

    It is a matrix with a row for every word, and neither one of a numbered layer nor the first
    table; without such a one, the table of the words is the last layer, too.

    >>> table = {"model.embed_tokens.weight": (300, 16), "model.layers.0.up.weight": (300, 16)}
    >>> sorted(heads_of({**table, "lm_head.weight": (300, 16)}, 300)), sorted(heads_of(table, 300))
    (['lm_head.weight'], ['model.embed_tokens.weight'])
    """
    wide = [n for n, s in shapes.items() if len(s) == _MATRIX_SIDES and vocabulary in s]
    outside = [name for name in wide if not _NUMBERED.search(name)]
    heads = [name for name in outside if name.endswith(_HEADS)]
    if not heads and len(outside) > 1:
        heads = [name for name in outside if not _TABLE.search(name)]
    return frozenset(heads or outside)
