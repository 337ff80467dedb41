"""Bridges to programs this project did not write."""

from lares.integrations import official

__all__ = ["official"]
