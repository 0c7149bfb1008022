"""What a language model is asked for an expansion, and what is taken of its answer."""
