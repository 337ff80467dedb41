"""Training objectives of the paper."""
