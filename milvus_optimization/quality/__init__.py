"""Quality by the user's judgements, in two halves of the queries: one to choose by, one to report."""
