"""Bridges to programs this project did not write."""
