"""Which data a run belongs to: a digest of its rows and ids, and numbers to tell a difference by.

Beside them the items that are most popular, for who is asked about nothing that the model knows.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lares.errors import CheckpointError
from lares.files import write_text
from lares.plain import settle_options, whole

if TYPE_CHECKING:
    from lares.data.dataset import Dataset

_MOST_POPULAR = 1000


@dataclass(frozen=True)
class DataRecord:
    """Record a data set, as it was read.

    Attributes:
        digest: of samples and raw item ids.
        users, items, interactions: how many.
        popular: raw ids of the items that training meets most often, the first most; at most 1000.
        form: of the digest; the first had the same samples of two forms of file for different data.
    """

    digest: str
    users: int
    items: int
    interactions: int
    popular: list[Any] = field(default_factory=list)
    form: int = 1  # of records that do not say it

    def __post_init__(self) -> None:
        settle_options(self)
        whole("form", self.form, 1, 2)

    @classmethod
    def of(cls, dataset: Dataset, form: int = 2) -> DataRecord:
        """Return the record of a data set, to be compared with those that have a digest of ``form``."""
        from lares.data.digest import former_digest  # brings numpy

        vocabulary = dataset.vocabulary
        rows = (-dataset.item_counts()[1:]).argsort(kind="stable")[:_MOST_POPULAR] + 1
        popular = vocabulary.decode(rows.tolist())
        digest = (
            dataset.digest() if form == 2 else former_digest(dataset.vocabulary, dataset.splits)
        )
        return cls(digest, dataset.n_users, len(vocabulary), dataset.n_interactions, popular, form)

    def difference(self, now: DataRecord) -> str:
        """Return what differs, in words; empty if the data are the same."""
        if now.digest == self.digest:
            return ""
        parts = [
            f"{getattr(now, name):,} {name} instead of {getattr(self, name):,}"
            for name in ("users", "items", "interactions")
            if getattr(now, name) != getattr(self, name)
        ]
        return ", ".join(parts) or "as many users, items and interactions, but rows differ"

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> DataRecord | None:
        """Return the record in a file; None if there is no file, as in runs older than records.

        Raises:
            CheckpointError: the file is broken.
        """
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is no record of data: {error}; restore it from a copy"
            ) from error
