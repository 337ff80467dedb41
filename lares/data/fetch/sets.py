"""Public data sets by name: what they are, on which terms, and how they are fetched."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lares.data.fetch.amazon import get_amazon_2023
from lares.data.fetch.drawn import LAW, get_drawn
from lares.data.fetch.movielens import RELEASES, get_movielens, get_movielens_100k
from lares.errors import ConfigError, DataError
from lares.names import nearest

_GROUPLENS = "GroupLens: cite Harper and Konstan (2015, doi 10.1145/2827872)"
_NOT_TO_BE_SHARED = f"{_GROUPLENS}; no commercial use, and no redistribution, without permission"
_TO_BE_SHARED = (
    f"{_GROUPLENS}; no commercial use without permission, redistribution under the same terms alone"
)
_SHARED = ("ml-20m", "ml-25m", "ml-32m", "ml-latest-small")


@dataclass(frozen=True)
class PublicSet:
    """A data set that can be fetched.

    Attributes:
        what: it is, in words.
        licence: terms of its publishers, in a line.
        get: fetches it into a folder, by default one of the cache, unless it is there, and returns its
            file of interactions. Of one with categories it takes the category first.
        has_categories: whether it is several, by category.
    """

    what: str
    licence: str
    get: Callable[..., Path]
    has_categories: bool = False


SETS = {
    "ml-100k": PublicSet(
        "MovieLens 100K, 0.1 million ratings", _NOT_TO_BE_SHARED, get_movielens_100k
    ),
    **{
        name: PublicSet(
            f"MovieLens {release.called}",
            _TO_BE_SHARED if name in _SHARED else _NOT_TO_BE_SHARED,
            functools.partial(get_movielens, name),
        )
        for name, release in RELEASES.items()
    },
    "drawn": PublicSet(
        f"Drawn, nobody's: {LAW}",
        "Part of this package, under its licence; figures of it say nothing about people",
        get_drawn,
    ),
    "amazon23": PublicSet(
        "Amazon Reviews 2023, 5-core, one category",
        "McAuley Lab: cite Hou et al. (2024, arXiv 2403.03952); terms: amazon-reviews-2023.github.io",
        get_amazon_2023,
        has_categories=True,
    ),
}


def names_of_sets() -> str:
    """Return the names by which data sets are fetched, with commas between them."""
    return ", ".join(
        f"{name}/CATEGORY" if each.has_categories else name for name, each in SETS.items()
    )


def fetched(name: str, category: str | None = None, folder: Path | None = None) -> Path:
    """Return a public set's file of interactions, fetched if need be, and show its terms.

    Args:
        name: of the set.
        category: of one that has categories.
        folder: where to put it; by default the cache.

    Raises:
        ConfigError: there is no set of that name, or a category is missing or too many.
        DownloadError: it cannot be fetched.
    """
    if name not in SETS:
        raise ConfigError(f"unknown data set {name!r}; {nearest(name, SETS)}")
    public = SETS[name]
    if category and not public.has_categories:
        raise ConfigError(f"{name} has no categories; got {category!r}")
    if public.has_categories and not category:
        raise ConfigError(f"{name} needs a CATEGORY, such as Video_Games")
    path = public.get(category, folder) if category else public.get(folder)
    print(f"{name}: {public.what}. {public.licence}", file=sys.stderr)
    return path


def is_data(path: str | Path) -> bool:
    """Return whether there is such a file or folder, or a public set of that name."""
    return Path(path).exists() or str(path).partition("/")[0] in SETS


def located(path: str | Path) -> Path:
    """Return a file or folder of interactions; that of a public set, fetched if need be, by its name.

    A file or folder that is called like a set is itself.

    Raises:
        DataError: there is nothing of that name.
        ConfigError: a category is missing or too many.
        DownloadError: a set cannot be fetched.
    """
    path = Path(path)
    if path.exists():
        return path
    if not is_data(path):
        is_a_name = path.name == str(path) and not path.suffix
        known = f", and no public data set; those are {names_of_sets()}" if is_a_name else ""
        raise DataError(f"there is no file or folder {path}{known}")
    name, _, category = str(path).partition("/")
    return fetched(name, category or None)
