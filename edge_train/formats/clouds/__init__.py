"""Clouds of points as scanners and modelling programs write them."""
