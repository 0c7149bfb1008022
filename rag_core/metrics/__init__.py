"""Numbers over queries: how good a ranking is, and whether a difference is more than luck."""
