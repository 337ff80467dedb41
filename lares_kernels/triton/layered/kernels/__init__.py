"""Compute the layered plan on the device."""
