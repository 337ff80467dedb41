"""Drawings on the pages, functions that give SVG; ``python -m website.drawings`` writes them."""
