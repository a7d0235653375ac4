"""Readers: engines that run forward passes of a model, each named by its module."""
