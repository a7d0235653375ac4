"""How much an engine computes in one call; a plan asks, so nothing heavy is imported here."""

SEQUENCES_PER_CALL = 4  # of an evaluation of a language model; more only takes memory
TEXTS_PER_CALL = 16  # of an evaluation of a classifier; more only takes memory
# What the library of bfloat16 products holds: code made for every shape, and room; measured.
BFLOAT16_BYTES = 90_000_000
LOGITS_AT_ONCE, LEAN_LOGITS = 1 << 25, 1 << 22  # numbers where adapters are trained: 128, 16 MiB
# Where these are of fewer tokens than there are, logits of all tokens and some words, in the cache.
WORDS_AT_ONCE = 1 << 20
