"""Device code of the layered plan."""
