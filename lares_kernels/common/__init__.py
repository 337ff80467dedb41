"""Share helpers that depend on no other folder: caches, number checks, devices, dispatch."""
