"""Provide backends ``reference`` and ``equations`` in plain PyTorch."""
