"""Backends ``reference`` and ``equations``: plain PyTorch."""
