"""Tasks: batches and losses, and how a person judges the result."""
