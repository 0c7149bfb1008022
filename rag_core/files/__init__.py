"""What is on disk: JSONL, manifests, unfinished work and computed rows, all of it whole or not there."""
