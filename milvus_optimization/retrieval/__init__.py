"""Ways to rank: dense search, BM25, their fusions and a reranker, and which of them is chosen."""
