"""What a RecBole model's constructor reads, without RecBole's files and parsers."""

from __future__ import annotations

from typing import Any

_FIELDS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "NEG_PREFIX": "neg_",
    "device": "cpu",
}


class ModelOptions(dict[str, Any]):
    """RecBole's ``Config``: None for what is not there."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__({**_FIELDS, **options})

    def __missing__(self, name: str) -> None:
        return None


class OneNumber:
    """RecBole's ``Dataset``, of which a model asks how many items there are."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def num(self, field: str) -> int:
        return self.n_items
