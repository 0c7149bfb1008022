"""Who computes: one module per engine, and which of them runs a model."""
