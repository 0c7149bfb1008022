"""What every stage shares. Imports no pipeline, and no torch at import."""
