"""Which indexes there are, and what each loses and costs: the sweep."""
