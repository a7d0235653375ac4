"""Task language-model: a text in, a language model out."""
