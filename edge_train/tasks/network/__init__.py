"""Task network: labeled samples in, a small network out."""
