"""Seconds by part of a step."""

from __future__ import annotations

import time


class Clock:
    """Adds the seconds between its laps to ``parts``, by name."""

    def __init__(self, parts: dict[str, float]) -> None:
        self._parts, self._last = parts, time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the seconds since the lap before, or since there is a clock, to a part."""
        now = time.perf_counter()
        self._parts[part] = self._parts.get(part, 0.0) + now - self._last
        self._last = now
