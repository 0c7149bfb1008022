"""Which passages a query gets: BM25, exact search by vectors, and the fusion of rankings."""
