"""A data set that is drawn by a law: nothing to download, nobody's data, the same on any machine.

It is for demos and first tries, and called *drawn* wherever a figure of it stands: what a model reaches
on it says how well the law is learnt, and nothing about people.

The law, whole; users, groups and places in a group are counted from 1:

- There are 3,000 users. One has ``floor(5 / u)`` items, ``u`` uniform in (0, 1], at most 50: half of
  the users have fewer than ten.
- There are 24 groups of 50 items; ``g07-12`` is the twelfth of group 7. A user begins in group ``g``
  with a weight of ``1 / (g + 3)``.
- Tastes drift: before every further item a user moves with probability 0.08 to the next group (the
  first after the last), and with 0.04 to a group drawn as the first one was.
- Order matters: a user who does not move takes with probability 0.5 the item that follows the last one
  in its group (the first after the last).
- Else popularity decides: the item at place ``p`` of the group has a weight of ``1 / (p + 3)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lares.data.fetch.download import file_digest
from lares.errors import DownloadError
from lares.files import atomic_write
from lares_kernels.common.cache import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWN_FILE = "drawn.csv"
DRAWN_SHA256 = "7d2b3887c51d98bfcc86f6f455ef20e2d31cf3f1ef336e40c521334d27631313"
LAW = (
    "3,000 users drift among 24 groups of 50 items; half of the time one takes the item that follows "
    "the last, else a popular one of the group"
)
_SEED = 2025
_USERS, _FEWEST, _MOST = 3000, 5, 50
_GROUPS, _GROUP_SIZE = 24, 50
_TO_THE_NEXT, _TO_ANY = 0.08, 0.04
_FOLLOWS = 0.5
_FLATTENING = 3  # of the popularity of groups and items, 1 / (number from 1 + this)


def drawn_histories() -> list[NDArray[np.int64]]:
    """Return each user's items, oldest first, numbered from 0, group after group.

    Nothing but uniform numbers, sums, quotients and comparisons comes in: no version of NumPy and no
    processor draws others.
    """
    import numpy as np  # here: help and the checks of options need none

    generator = np.random.Generator(np.random.PCG64(_SEED))
    groups, places = (
        np.cumsum(1.0 / (np.arange(1, n + 1) + _FLATTENING)) for n in (_GROUPS, _GROUP_SIZE)
    )

    def weighted(totals: NDArray[np.float64]) -> NDArray[np.int64]:
        """Draw a number for each user, by weights that add up to ``totals``."""
        wanted = generator.random(_USERS) * totals[-1]
        found: NDArray[np.int64] = np.searchsorted(totals, wanted, side="right")
        return found.clip(max=len(totals) - 1)

    lengths = np.minimum(_FEWEST / (1.0 - generator.random(_USERS)), _MOST).astype(np.int64)
    group, place = weighted(groups), weighted(places)
    items = np.empty((_USERS, _MOST), dtype=np.int64)
    items[:, 0] = group * _GROUP_SIZE + place
    for position in range(1, _MOST):
        moves, follows = generator.random(_USERS), generator.random(_USERS) < _FOLLOWS
        fresh_group, fresh_place = weighted(groups), weighted(places)
        stays = moves >= _TO_THE_NEXT + _TO_ANY
        moved = np.where(moves < _TO_THE_NEXT, (group + 1) % _GROUPS, fresh_group)
        group = np.where(stays, group, moved)
        place = np.where(stays & follows, (place + 1) % _GROUP_SIZE, fresh_place)
        items[:, position] = group * _GROUP_SIZE + place
    return [row[:length] for row, length in zip(items, lengths, strict=True)]


def get_drawn(folder: Path | None = None) -> Path:
    """Return the file of drawn interactions, drawn unless it is there.

    Args:
        folder: where to put it; by default ``drawn`` in the cache folder.

    Raises:
        DownloadError: another file of that name is there, or it cannot be written.
    """
    path = (folder or cache_folder() / "drawn") / DRAWN_FILE
    try:
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_bytes(_csv().encode())
        digest = file_digest(path, "sha256")
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {error}") from error
    if digest != DRAWN_SHA256:
        raise DownloadError(
            f"{path} is not the drawn data of this release (sha256 {digest}, expected {DRAWN_SHA256}); "
            "move it elsewhere, and it is drawn anew"
        )
    return path


def follower(item: str) -> str:
    """Return the id of the item that follows ``item`` in its group."""
    group, _, place = item.partition("-")
    return f"{group}-{int(place) % _GROUP_SIZE + 1:02d}"


def _csv() -> str:
    rows = ["user_id,item_id,timestamp"]
    for user, items in enumerate(drawn_histories(), start=1):
        for time, item in enumerate(items.tolist()):
            group, place = divmod(item, _GROUP_SIZE)
            rows.append(f"u{user:04d},g{group + 1:02d}-{place + 1:02d},{time}")
    return "\n".join([*rows, ""])
