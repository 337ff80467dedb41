"""Device code of the fused plan."""
