"""Self-supervised pre-training (LARES, arXiv 2505.16865, section 3.3)."""
