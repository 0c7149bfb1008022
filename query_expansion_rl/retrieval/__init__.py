"""The user's retriever with expanded queries, and what needs no training: RM3, dense feedback, fusions."""
