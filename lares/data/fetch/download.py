"""Files from the web, checked and whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from lares.errors import DownloadError
from lares.files import atomic_write

_TIMEOUT_SECONDS = 20
_CHUNK_BYTES = 1 << 16


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_digest(path: Path, algorithm: str, expected: str, source: str) -> None:
    """Raise ``DownloadError`` unless the file has the digest expected of ``source``."""
    actual = file_digest(path, algorithm)
    if actual != expected:
        raise DownloadError(
            f"what came from {source} has {algorithm} {actual}, expected {expected}; it was thrown "
            "away. Try again, or fetch the file by hand"
        )


def download(url: str, path: Path, *, algorithm: str, expected: str, progress: bool = True) -> None:
    """Fetch ``url`` into ``path`` and check its digest; ``path`` is whole or absent.

    Raises:
        DownloadError: the address cannot be reached, or the digest is another.
    """
    from tqdm import tqdm  # here: it takes a while, and the command line's help needs none

    try:
        with atomic_write(path) as temporary:
            with (
                urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer,
                open(temporary, "wb") as file,
                tqdm(
                    total=int(answer.headers.get("Content-Length") or 0) or None,
                    unit="B",
                    unit_scale=True,
                    desc=path.name,
                    disable=not progress,
                ) as bar,
            ):
                while chunk := answer.read(_CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
            check_digest(temporary, algorithm, expected, url)
    except (urllib.error.URLError, OSError) as error:
        raise DownloadError(f"{url} cannot be fetched: {error}") from error


def extract_member(archive: Path, member: str, path: Path) -> None:
    """Take one file out of a zip archive; ``path`` is whole or absent."""
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as inside,
            atomic_write(path) as temporary,
            open(temporary, "wb") as file,
        ):
            shutil.copyfileobj(inside, file, _CHUNK_BYTES)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise DownloadError(f"{archive} has no readable {member}: {error}") from error
