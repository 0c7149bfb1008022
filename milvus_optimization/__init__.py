"""Milvus optimisation: vectors, index, fusion and reranking depth chosen by the user's own qrels."""
