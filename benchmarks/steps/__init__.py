"""Whole training steps: the project's own, and those of models that others wrote."""
