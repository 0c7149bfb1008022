"""The recommendation, and the page that explains it."""
