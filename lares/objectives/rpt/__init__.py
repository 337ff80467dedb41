"""Reinforcement post-training (LARES, arXiv 2505.16865, section 3.4)."""
