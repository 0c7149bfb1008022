"""Distil a large reranker into a small cross-encoder."""
