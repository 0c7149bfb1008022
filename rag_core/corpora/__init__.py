"""The corpus, its queries and judgements, and the vectors that models give them."""
