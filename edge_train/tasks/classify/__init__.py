"""Task classify: labeled texts in, a text classifier out."""
