"""Training: configuration, the loop, its state on disk, logs and curves."""
