"""Gradients: from forward passes, backward passes or local targets."""
