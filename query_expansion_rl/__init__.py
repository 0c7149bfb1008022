"""Whether expanding queries helps a retriever, by which way, and a small LLM that learns to write what it needs."""
