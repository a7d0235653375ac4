"""Estimators: how forward passes (or one backward pass) become gradients."""
