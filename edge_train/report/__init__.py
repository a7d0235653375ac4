"""One calm page of a run."""
