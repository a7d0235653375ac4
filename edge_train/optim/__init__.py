"""Update rules: what becomes of a gradient, a block at a time."""
