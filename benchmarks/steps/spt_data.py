"""Interactions with the sizes of two Amazon data sets, drawn: a benchmark needs no download.

``USERS`` counts users by how many items they have, from 5 items on; the last entry holds all of 40
items and more. They were counted in Amazon Scientific (2018, as prepared for UniSRec: 8,442 users,
4,385 items, 59,384 interactions) and Amazon Beauty (2014, 5-core: 22,363 users, 12,101 items, 198,502
interactions). Which items a user has is drawn by popularity; time and memory do not depend on it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lares.data.dataset import Dataset, Sequences, leave_one_out
from lares.data.vocabulary import Vocabulary

ITEMS = {"scientific18": 4385, "beauty14": 12101}
USERS = {
    "scientific18": (
        *(3308, 1902, 1076, 653, 382, 303, 199, 137, 109, 67, 62, 50, 38, 30, 20, 23, 18, 6, 9, 4),
        *(6, 6, 6, 4, 3, 3, 2, 1, 1, 3, 2, 3, 0, 0, 0, 6),
    ),
    "beauty14": (
        *(7162, 4221, 2680, 1811, 1366, 881, 695, 558, 439, 361, 262, 207, 213, 141, 118, 112, 117),
        *(84, 66, 73, 74, 61, 54, 44, 44, 38, 30, 38, 20, 19, 21, 19, 23, 24, 22, 265),
    ),
}
FEWEST_ITEMS = 5
FLATTENING = 20  # popularity falls with 1 / (rank + this): the most popular item near 0.3% of all


@lru_cache(maxsize=2)
def drawn_dataset(name: str) -> Dataset:
    """Sequences with the lengths and the catalogue of ``scientific18`` or ``beauty14``."""
    generator = np.random.default_rng(0)
    counts = USERS[name]
    lengths = np.repeat(np.arange(FEWEST_ITEMS, FEWEST_ITEMS + len(counts)), counts)
    generator.shuffle(lengths)
    popularity = 1.0 / (np.arange(ITEMS[name]) + FLATTENING)
    rows = generator.choice(ITEMS[name], size=lengths.sum(), p=popularity / popularity.sum())
    return leave_one_out(
        Sequences(
            items=(rows + 1).astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            user_ids=np.arange(len(lengths)),
            vocabulary=Vocabulary(np.arange(1, ITEMS[name] + 1)),
            name=name,
        )
    )
