"""Store verdicts on kernels in the cache folder: which gave right results on which device.

A verdict belongs to a device, the versions that compile for it and one build of the kernels; if one of
these changes, it has another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from lares_kernels.common.cache import cache_folder

_PARTIAL = ".part"  # ends the name of a file that is being written
_WRITTEN_SECONDS = (
    3600.0  # after which a file is complete or abandoned; machines' clocks differ by less
)


@dataclass(frozen=True)
class Verdict:
    """Record what a check of a kernel found.

    Attributes:
        kernel: description of the checked kernel.
        device: the device it ran on.
        errors: error of each part, relative to the reference in float64; NaN or inf if not finite.
        bounds: greatest permitted errors.
        seconds: duration of the check, compilation included.
        raised: the exception that ended it, in one line; empty if none did.
    """

    kernel: str
    device: str
    errors: dict[str, float]
    bounds: dict[str, float]
    seconds: float
    raised: str = ""

    @property
    def failed(self) -> bool:
        """Return True unless every error is within its bound (NaN is not)."""
        within = [self.errors[part] <= bound for part, bound in self.bounds.items()]
        return bool(self.raised) or not within or not all(within)

    def worst(self, most: int = 3) -> str:
        """Return the largest errors in words, by how near they are to their bounds or past them."""
        if self.raised:
            return self.raised

        def by_bound(part: str) -> float:
            error = self.errors[part]
            return math.inf if math.isnan(error) else error / self.bounds[part]

        order = sorted(self.bounds, key=by_bound, reverse=True)
        return ", ".join(
            f"{part} off by {self.errors[part]:.1e} (bound {self.bounds[part]:.0e})"
            for part in order[:most]
        )


@cache
def digest_of(*paths: Path) -> str:
    """Return a short digest of files, and of all Python files of folders; without what is missing."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def version_of(package: str) -> str:
    """Return an installed package's version, ``none`` if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@cache
def processor_name() -> str:
    """Return what the system calls this processor."""
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _file_of(identity: dict[str, str]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return cache_folder() / "self-check" / f"{name}.json"


def stored(identity: dict[str, str], bounds: Mapping[str, float]) -> Verdict | None:
    """Return the verdict stored under an identity.

    Args:
        identity: everything that the verdict depends on.
        bounds: bounds of every part of a check. A verdict with others belongs to another check.

    Returns:
        The verdict; None if there is none, or an incomplete one.
    """
    try:
        found = json.loads(_file_of(identity).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("identity") != identity:
        return None
    fields = found.get("verdict")
    if not isinstance(fields, dict) or fields.keys() != Verdict.__dataclass_fields__.keys():
        return None
    verdict = Verdict(**fields)
    return verdict if _is_whole(verdict, bounds) else None


def _is_whole(verdict: Verdict, bounds: Mapping[str, float]) -> bool:
    """Return True if a verdict is one that a check which came to its end can give."""
    errors = verdict.errors
    return (
        isinstance(verdict.kernel, str)
        and isinstance(verdict.device, str)
        and verdict.raised == ""  # one that raised is not stored
        and type(verdict.seconds) is float
        and verdict.bounds == bounds
        and isinstance(errors, dict)
        and errors.keys() == bounds.keys()
        and all(type(error) is float and not error < 0 for error in errors.values())
    )


def store(identity: dict[str, str], verdict: Verdict) -> None:
    """Keep a verdict, whole or not at all; nothing where the cache folder cannot be written."""
    path = _file_of(identity)
    # Machines that share a home folder may have processes of the same number.
    host = re.sub("[^A-Za-z0-9.-]", "_", platform.node())[:64]
    writer = f"{host}.{os.getpid()}.{os.urandom(4).hex()}"
    partial = path.with_name(f"{path.stem}.{writer}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent)
        text = json.dumps({"identity": identity, "verdict": asdict(verdict)}, indent=1)
        with open(partial, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove what writers left that were killed: partial files older than any that is being written."""
    for file in folder.glob(f"*{_PARTIAL}"):
        with contextlib.suppress(OSError):  # another has removed it, or it is another user's
            if time.time() - file.stat().st_mtime > _WRITTEN_SECONDS:
                file.unlink()
