"""Small networks in NumPy, a block at a time."""
