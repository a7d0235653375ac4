"""One run from recipe to report; it knows protocols and registries, no concrete class."""
