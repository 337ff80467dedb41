"""The model: configuration, encoder, scores, and how it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lares.on_first_use import on_first_use

if TYPE_CHECKING:
    from lares.model.catalogue import Catalogue, ItemIndex
    from lares.model.config import LaresConfig
    from lares.model.encoder import EncoderOutput, LaresEncoder
    from lares.model.model import LaresModel
    from lares.model.packed import PackedHistories

__all__ = [
    "Catalogue",
    "EncoderOutput",
    "ItemIndex",
    "LaresConfig",
    "LaresEncoder",
    "LaresModel",
    "PackedHistories",
]

_HOMES = {
    "Catalogue": "lares.model.catalogue",
    "EncoderOutput": "lares.model.encoder",
    "ItemIndex": "lares.model.catalogue",
    "LaresConfig": "lares.model.config",
    "LaresEncoder": "lares.model.encoder",
    "LaresModel": "lares.model.model",
    "PackedHistories": "lares.model.packed",
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
