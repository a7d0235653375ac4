"""What lies on disk, read without believing it."""
