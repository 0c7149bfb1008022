"""What a hostile day does to a run, done for real."""
