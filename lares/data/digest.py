"""Digests of data: of the samples and the catalogue, however the samples lie in memory.

Samples of one user mostly extend each other: the next one's history is the one before and its target.
A run of such samples is a chain; how many samples it has and what the last one holds says it all.
Chains are found by what samples hold, so they are the same where samples share one array of items, as
those of plain interactions do, and where each has a copy of its own, as in RecBole's sequence form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lares.data.split import Split
from lares.data.vocabulary import Vocabulary

_AT_ONCE = 1 << 20  # samples or items that are looked at together


def digest(vocabulary: Vocabulary, splits: Iterable[Split]) -> str:
    """Return a hash of samples, in their order, and vocabulary, in hexadecimal digits."""
    whole = hashlib.blake2b(vocabulary.digest(), digest_size=16)
    for split in splits:
        heads = np.flatnonzero(~_extends(split))
        counts = np.diff(heads, append=len(split))
        whole.update(_hashed(np.array([len(split), len(heads)])))
        whole.update(_hashed(split.ends[heads] - split.starts[heads]) + _hashed(counts))
        lasts = heads + counts - 1
        items = hashlib.blake2b(digest_size=32)
        for places in _places(split.starts[lasts], split.ends[lasts] + 1):
            items.update(_plain(split.items[places]).data)
        whole.update(items.digest())
    return whole.hexdigest()


def former_digest(vocabulary: Vocabulary, splits: Iterable[Split]) -> str:
    """Return the hash that runs kept before :func:`digest`, which also told how samples lie."""
    hashes: dict[int, bytes] = {}  # of arrays that splits share, each once
    whole = hashlib.blake2b(vocabulary.digest(), digest_size=16)
    for split in splits:
        if id(split.items) not in hashes:
            hashes[id(split.items)] = _hashed(split.items)
        whole.update(hashes[id(split.items)])
        # A user's samples start at one place and end at one after the other: few runs say it all.
        for places in (split.starts, split.ends - np.arange(len(split))):
            first = np.flatnonzero(np.diff(places, prepend=-1))
            whole.update(_hashed(places[first]) + _hashed(first))
        whole.update(_hashed(np.array([len(split)])))
    return whole.hexdigest()


def _extends(split: Split) -> NDArray[np.bool_]:
    """Return (S,) whether a sample's history is the sample before it, its target included."""
    extends = np.zeros(len(split), dtype=bool)
    for begin in range(1, len(split), _AT_ONCE):
        end = min(begin + _AT_ONCE, len(split))
        starts, ends = split.starts[begin - 1 : end], split.ends[begin - 1 : end]
        before, after = starts[:-1], starts[1:]
        sizes = ends[:-1] + 1 - before
        longer = ends[1:] - after == sizes
        extends[begin:end] = longer & (before == after)
        # Elsewhere they are copies, which are compared; most that are none differ in their first item.
        copies = np.flatnonzero(longer & (before != after))
        copies = copies[split.items[before[copies]] == split.items[after[copies]]]
        extends[begin + copies] = _equal(split.items, before[copies], after[copies], sizes[copies])
    return extends


def _equal(
    items: NDArray[np.int32],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return (n,) whether so many (n,) items from places ``first`` on are those from ``second`` on."""
    differing, seen = [np.empty(0, np.int64)], 0  # places among all that are compared
    pairs = zip(_places(first, first + sizes), _places(second, second + sizes), strict=True)
    for one, other in pairs:
        differing.append(np.flatnonzero(items[one] != items[other]) + seen)
        seen += len(one)
    before = np.searchsorted(np.concatenate(differing), np.append(0, np.cumsum(sizes)))
    same: NDArray[np.bool_] = before[1:] == before[:-1]
    return same


def _places(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Give all places of ranges, one range after the other: in pieces of whole ranges, of more than
    ``_AT_ONCE`` places only where one range has them."""
    ends = np.cumsum(stops - starts)
    begin, done = 0, 0
    while begin < len(starts):
        end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        sizes = stops[begin:end] - starts[begin:end]
        shift = starts[begin:end] - (ends[begin:end] - sizes - done)
        yield np.repeat(shift, sizes) + np.arange(int(sizes.sum()), dtype=np.int64)
        begin, done = end, int(ends[end - 1])


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as its bytes are on most machines."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _hashed(array: NDArray[Any]) -> bytes:
    """Return a hash (32 bytes) of an array's numbers, the same on every machine."""
    return hashlib.blake2b(_plain(array).data, digest_size=32).digest()
