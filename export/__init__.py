"""Writers: turn models and learned tokens into files that other programs load."""
