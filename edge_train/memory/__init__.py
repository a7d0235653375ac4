"""The cap: measured, held, predicted. Empty, so that the parent of a run stays small."""
