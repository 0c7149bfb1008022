"""The queries, split without near duplicates across, and the folder that all stages start from."""
