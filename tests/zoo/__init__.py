"""Model folders as people have them: one builder for each, with random weights."""
