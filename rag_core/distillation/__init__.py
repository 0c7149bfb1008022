"""What both distillers share: students, losses, the trainer, and which weights are kept."""
