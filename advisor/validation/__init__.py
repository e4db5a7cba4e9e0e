"""What others measured and published, beside what the tape predicts for the same run."""
