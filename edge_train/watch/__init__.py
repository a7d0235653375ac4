"""`edge-train watch`: a local page of the runs in a folder. Standard library only, and small."""
