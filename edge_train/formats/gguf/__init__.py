"""GGUF files, as llama.cpp and its kin run them: read with NumPy alone, a few rows at a time."""
