"""The audit of a run of task retrieve: how easily a foreign document rises for its own queries."""
