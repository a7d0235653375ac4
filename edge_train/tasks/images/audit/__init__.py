"""The audit of a run of task images: its own pictures with a patch on them, in several views."""
