"""Every way beside every other on the test queries: table, verdict, page."""
