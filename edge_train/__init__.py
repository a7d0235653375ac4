"""Train on the device, inside a byte budget the user names."""

__version__ = "0.1.0"
