"""Model folders as people have them: each builder writes an odd one, with tiny random weights."""
