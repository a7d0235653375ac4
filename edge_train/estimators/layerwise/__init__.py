"""Methods that train a network block by block, without an error from above."""
