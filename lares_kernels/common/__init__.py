"""Share helpers that depend on no other folder: caches, checks of numbers, devices, the
dispatcher."""
