"""The ground: errors, records, the shell of a stage, tables and figures; it imports nothing of the others."""
