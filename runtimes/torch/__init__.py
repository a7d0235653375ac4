"""The engine torch."""
