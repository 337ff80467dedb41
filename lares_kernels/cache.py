"""The folder where what may be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$LARES_CACHE``, else ``~/.cache/lares``; it need not exist."""
    return Path(os.environ.get("LARES_CACHE") or Path.home() / ".cache" / "lares")
