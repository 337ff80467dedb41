"""Fetching public data sets into the cache folder, checked and whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from lares.errors import DownloadError
from lares.files import atomic_write
from lares.names import nearest
from lares_kernels.cache import cache_folder

MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MOVIELENS_MD5 = "0e33842e24a9c977be4e0107933c0723"  # published beside the archive
_MOVIELENS_MEMBER = "ml-100k/u.data"

RECBOLE_REQUIREMENT = "recbole==1.2.1"
RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_RECBOLE_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"

AMAZON_REPOSITORY = "McAuley-Lab/Amazon-Reviews-2023"
AMAZON_CATEGORIES = (
    "All_Beauty",
    "Amazon_Fashion",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Subscription_Boxes",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
)
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
    found = file_digest(path, algorithm)
    if found != expected:
        raise DownloadError(
            f"what came from {source} has {algorithm} {found}, expected {expected}; it was thrown "
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
        with zipfile.ZipFile(archive) as opened, atomic_write(path) as temporary:
            temporary.write_bytes(opened.read(member))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise DownloadError(f"{archive} has no readable {member}: {error}") from error


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


def get_amazon_2023(category: str, folder: Path | None = None) -> Path:
    """The 5-core interactions of a category of Amazon Reviews 2023, from the Hugging Face hub.

    The hub's client shows progress, goes on with a download that was cut off, and checks what came.

    Args:
        category: one of ``AMAZON_CATEGORIES``.
        folder: where to put it; by default ``amazon23`` in the cache folder.

    Returns:
        The CSV file.

    Raises:
        DownloadError: there is no such category, or the hub cannot be reached.
    """
    if category not in AMAZON_CATEGORIES:
        raise DownloadError(
            f"unknown category {category!r}; {nearest(category, AMAZON_CATEGORIES)}"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    folder = folder or cache_folder() / "amazon23"
    try:
        found = hf_hub_download(
            repo_id=AMAZON_REPOSITORY,
            repo_type="dataset",
            filename=f"benchmark/5core/rating_only/{category}.csv",
            local_dir=folder,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise DownloadError(
            f"{category}.csv of {AMAZON_REPOSITORY} cannot be fetched from the Hugging Face hub: "
            f"{error}"
        ) from error
    return Path(found)
