"""What is timed of the op and the catalogue ops, against what, and how it is held to the truth."""
