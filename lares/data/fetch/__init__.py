"""Fetching public data sets into the cache folder, checked and whole or not at all."""
