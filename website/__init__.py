"""The pages as a site, and the drawings on them: ``mkdocs build``, ``python -m website.drawings``."""
