"""Distil a large embedder into a small bi-encoder."""
