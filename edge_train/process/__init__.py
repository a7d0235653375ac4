"""This process: how it ends, and how much it may take."""
