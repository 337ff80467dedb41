"""The C libraries: what installing built, and their structs and functions. None of it imports torch."""
