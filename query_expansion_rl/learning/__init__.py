"""Learners: a choice among variants per query, and the LLM by rejection sampling, DPO or GRPO."""
