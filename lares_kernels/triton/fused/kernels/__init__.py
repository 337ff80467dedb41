"""Compute the fused plan on the device."""
