"""This process: how it ends."""
