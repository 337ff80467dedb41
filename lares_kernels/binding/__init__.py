"""Bind the C libraries: their structs, functions and build notes. No module here imports torch."""
