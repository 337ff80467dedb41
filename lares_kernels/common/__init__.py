"""What any room may use, and what knows none: caches, checks of numbers, devices, the dispatcher."""
