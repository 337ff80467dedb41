"""Options of ``lares recommend`` beside those of data and of computing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lares.errors import ConfigError
from lares.model.config import MOST_STEPS
from lares.names import shown
from lares.plain import option, settle_options, whole_in
from lares.table_files import require_form

_OF_FILES = ("users", "items", "item_columns", "exclude", "only")


@dataclass(frozen=True)
class RecommendOptions:
    """Options of the command beside those of its data and of computing.

    Attributes:
        history: One history, oldest item first.
        histories: File with one history a line, in the same form; it may be compressed (.gz, .zst).
        users: Users of the data, whose whole histories count: all, or a file with one id a line.
        output: File for the lists, with columns user, item, score and rank; .parquet, .csv or .jsonl.
            Users of --histories are numbers, from 0. What was stopped or killed goes on.
        k: Number of items to recommend.
        keep_history: Recommend also items of the history.
        unknown: Treatment of items and users that the model does not know; skip leaves them out and
            takes blank lines for empty histories.
        emptied: List for a history of which nothing is left: an empty one, or the items that training
            met most often, without scores.
        exclude: File of items to leave out, one id a line.
        only: File of the items that may be recommended, one id a line. Default: all.
        items: File of items with their titles, which become a column: Parquet, CSV or JSON lines, or
            MovieLens' movies.dat or u.item.
        item_columns: Columns of ids and titles in the file of items. Default: those called item_id,
            movieId, parent_asin, asin, item or id, and title or name.
        depth: Reasoning depth. Default: the training mean.
    """

    history: str | None = None
    histories: str | None = None
    users: str | None = None
    output: str | None = None
    k: int = option(10, whole_in(1))
    keep_history: bool = False
    unknown: Literal["error", "skip"] = "error"
    emptied: Literal["nothing", "popular"] = "nothing"
    exclude: str | None = None
    only: str | None = None
    items: str | None = None
    item_columns: str | None = None
    depth: int | None = option(None, whole_in(1, MOST_STEPS))

    def __post_init__(self) -> None:
        settle_options(self, "--")
        whose = [self.history, self.histories, self.users]
        if whose.count(None) != len(whose) - 1:
            raise ConfigError(
                "give --history ID,ID,... or --histories FILE or --users all|FILE, one of them"
            )
        if self.output is None:
            for name in _OF_FILES:
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name} is for lists in a file; give --output FILE, too")
        elif self.history is not None:
            raise ConfigError("--output is for --histories FILE or --users; --history is printed")
        else:
            require_form("--output", Path(self.output))
        self._check_columns()

    def _check_columns(self) -> None:
        if self.item_columns is None:
            return
        if self.items is None:
            raise ConfigError("--item_columns is for --items FILE, which is not given")
        columns = self.titles_in
        if len(columns) != 2 or not all(columns) or columns[0] == columns[1]:
            raise ConfigError(
                f"--item_columns is {shown(self.item_columns)}; it must be two names, those of ids and "
                "titles, such as item_id,title"
            )

    @property
    def titles_in(self) -> list[str]:
        """Columns of ids and titles; none where they are found by their names."""
        return [] if self.item_columns is None else self.item_columns.split(",")
