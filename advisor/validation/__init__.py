"""Published measurements, compared with what the tape predicts for the same runs."""
