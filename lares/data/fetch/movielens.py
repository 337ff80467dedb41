"""MovieLens, its ratings in every release."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from lares.data.fetch.download import check_digest, download, extract_member
from lares.errors import DownloadError
from lares_kernels.common.cache import cache_folder

MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MOVIELENS_MD5 = "0e33842e24a9c977be4e0107933c0723"  # published beside the archive
_MOVIELENS_MEMBER = "ml-100k/u.data"

MOVIELENS_FOLDER = "https://files.grouplens.org/datasets/movielens"


class Release(NamedTuple):
    """A release of MovieLens.

    Attributes:
        called: what, and how large it is, in words.
        member: of the archive, the file of ratings.
        algorithm, digest: of the archive; MD5 where GroupLens publishes one beside it.
    """

    called: str
    member: str
    algorithm: str
    digest: str


RELEASES = {
    "ml-1m": Release(
        "1M, 1 million ratings", "ml-1m/ratings.dat", "md5", "c4d9eecfca2ab87c1945afe126590906"
    ),
    "ml-10m": Release(
        "10M, 10 million ratings",
        "ml-10M100K/ratings.dat",
        "md5",
        "ce571fd55effeba0271552578f2648bd",
    ),
    "ml-20m": Release(
        "20M, 20 million ratings", "ml-20m/ratings.csv", "md5", "cd245b17a1ae2cc31bb14903e1204af3"
    ),
    "ml-25m": Release(
        "25M, 25 million ratings", "ml-25m/ratings.csv", "md5", "6b51fb2759a8657d3bfcbfc42b592ada"
    ),
    "ml-32m": Release(
        "32M, 32 million ratings", "ml-32m/ratings.csv", "md5", "d472be332d4daa821edc399621853b57"
    ),
    "ml-latest-small": Release(
        "latest, small, of September 2018, 0.1 million ratings",
        "ml-latest-small/ratings.csv",
        "sha256",
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    ),
}

RECBOLE_REQUIREMENT = "recbole==1.2.1"
RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_RECBOLE_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"


def get_movielens_100k(folder: Path | None = None, *, progress: bool = True) -> Path:
    """MovieLens 100K: from GroupLens, or where that cannot be reached from the recbole wheel.

    Args:
        folder: where to put it; by default ``ml-100k`` in the cache folder.
        progress: show a bar.

    Returns:
        The file of interactions: ``u.data``, or RecBole's ``ml-100k.inter`` with the same rows.

    Raises:
        DownloadError: neither source can be reached, or what came is not what was published.
    """
    folder = folder or cache_folder() / "ml-100k"
    from_grouplens, from_wheel = folder / "u.data", folder / "ml-100k.inter"
    for kept in (from_grouplens, from_wheel):
        if kept.is_file():
            return kept
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "ml-100k.zip"
        try:
            download(
                MOVIELENS_URL, archive, algorithm="md5", expected=MOVIELENS_MD5, progress=progress
            )
        except DownloadError as first:
            try:
                wheel = _recbole_wheel(Path(scratch))
            except DownloadError as second:
                raise DownloadError(f"{first}; and {second}") from second
            extract_member(wheel, _RECBOLE_MEMBER, from_wheel)
            return from_wheel
        extract_member(archive, _MOVIELENS_MEMBER, from_grouplens)
    return from_grouplens


def get_movielens(name: str, folder: Path | None = None, *, progress: bool = True) -> Path:
    """The ratings of a larger release of MovieLens, from GroupLens.

    Args:
        name: of the release, one of ``RELEASES``.
        folder: where to put it; by default ``name`` in the cache folder.
        progress: show a bar.

    Returns:
        The file of ratings.

    Raises:
        DownloadError: it cannot be reached, or what came is not what was published.
    """
    release = RELEASES[name]
    path = (folder or cache_folder() / name) / Path(release.member).name
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / f"{name}.zip"
        url = f"{MOVIELENS_FOLDER}/{archive.name}"
        download(
            url,
            archive,
            algorithm=release.algorithm,
            expected=release.digest,
            progress=progress,
        )
        extract_member(archive, release.member, path)
    return path


def _recbole_wheel(folder: Path) -> Path:
    """The recbole wheel through pip, without what it depends on, checked against its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{RECBOLE_REQUIREMENT} --hash=sha256:{RECBOLE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip could not fetch {RECBOLE_REQUIREMENT}: {error}") from error
    wheels = list(folder.glob("recbole-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise DownloadError(f"pip could not fetch {RECBOLE_REQUIREMENT}: {lines[-1]}")
    check_digest(wheels[0], "sha256", RECBOLE_SHA256, RECBOLE_REQUIREMENT)
    return wheels[0]
