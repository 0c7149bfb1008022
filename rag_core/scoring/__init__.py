"""A model over files: scores and vectors in chunks that survive a kill."""
