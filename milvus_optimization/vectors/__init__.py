"""Exact search, and what fewer bits and dimensions lose in it."""
