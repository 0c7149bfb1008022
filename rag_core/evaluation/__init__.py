"""Before, after and teacher on labelled files: the report, its plots, latency and depth."""
