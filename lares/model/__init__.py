"""The model: configuration, encoder, scores, and how it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lares.on_first_use import on_first_use

if TYPE_CHECKING:
    from lares.model.config import LaresConfig
    from lares.model.encoder import EncoderOutput, LaresEncoder
    from lares.model.model import ItemIndex, LaresModel

__all__ = ["EncoderOutput", "ItemIndex", "LaresConfig", "LaresEncoder", "LaresModel"]

_HOMES = {
    "EncoderOutput": "lares.model.encoder",
    "ItemIndex": "lares.model.model",
    "LaresConfig": "lares.model.config",
    "LaresEncoder": "lares.model.encoder",
    "LaresModel": "lares.model.model",
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
