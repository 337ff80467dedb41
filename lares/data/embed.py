"""Text features of items from a sentence-transformers model that the user names.

That package (Reimers and Gurevych, EMNLP 2019) is optional: ``pip install 'lares-kernels[text]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from lares.data.ids import encode_column, sort_codes
from lares.data.readers import open_table
from lares.data.text_features import write_text_features
from lares.errors import DataError
from lares.names import shown


class ItemTexts(NamedTuple):
    """Raw item ids as strings, and the text of each, empty where there is none."""

    items: list[str]
    texts: list[str]


def read_item_texts(
    path: Path, item_column: str = "item_id", text_columns: Sequence[str] = ("title",)
) -> ItemTexts:
    """Return the texts in a table in Parquet, CSV or JSON lines, a row for every item.

    Several columns are joined with spaces.

    Raises:
        DataError: the file or a column is missing, an id is empty or stands in two rows.
    """
    table = open_table(Path(path), (item_column, *text_columns))
    columns = table.read((item_column, *text_columns))
    if columns.num_rows == 0:
        raise DataError(f"{path} holds no item")
    coded = encode_column(columns.column(item_column), table.typed, table.problem(item_column))
    if coded.codes.min() < 0:
        row = int(np.argmin(coded.codes >= 0))
        raise DataError(f"{table.place(row)}: column {item_column!r} is empty")
    codes, ids = sort_codes(coded, as_text=True)
    items: list[str] = ids.take(pa.array(codes)).to_pylist()
    if len(ids) < len(items):
        twice = int(np.argmax(np.bincount(codes) > 1))
        first, second = np.flatnonzero(codes == twice)[:2]
        raise DataError(
            f"{path}: item {shown(ids[twice].as_py())} stands in rows {first + 1} and {second + 1}"
        )
    parts = [columns.column(name).to_pylist() for name in text_columns]
    texts = [
        " ".join(filter(None, ("" if part is None else str(part).strip() for part in row)))
        for row in zip(*parts, strict=True)
    ]
    if not any(texts):
        raise DataError(f"{path} holds no text in {', '.join(map(repr, text_columns))}")
    return ItemTexts(items, texts)


def load_encoder(model: str, device: str | None = None) -> Any:
    """The sentence-transformers model of that name, or in that folder.

    Raises:
        DataError: the package is not installed, or the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise DataError(
            f"text features need sentence-transformers, which cannot be imported ({error}); "
            "pip install 'lares-kernels[text]' installs it"
        ) from error
    try:
        return SentenceTransformer(model, device=device)
    except Exception as error:  # whatever its hub, files or libraries raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"sentence-transformers cannot load model {model!r}: {reason}") from error


def embed_items(
    texts: ItemTexts, encoder: Any, out: Path, *, model: str = "", batch_size: int = 64
) -> tuple[int, int]:
    """Write the features that ``encoder`` makes of the texts to ``out``, a safetensors file.

    Items without text get zeros.

    Args:
        texts: of the items.
        encoder: has ``encode(texts, batch_size=..., show_progress_bar=...)`` giving (n, D) numbers.
        out: file to write.
        model: name of the encoder, kept in the file's metadata.
        batch_size: texts at a time.

    Returns:
        How many items had text, and the width ``D``.
    """
    if out.suffix != ".safetensors":
        raise DataError(
            f"{out} must end in .safetensors: that form keeps which row is which item's"
        )
    there = [row for row, text in enumerate(texts.texts) if text]
    made = encoder.encode(
        [texts.texts[row] for row in there], batch_size=batch_size, show_progress_bar=False
    )
    encoded = torch.from_numpy(np.asarray(made, dtype=np.float32))
    if encoded.dim() != 2 or len(encoded) != len(there):
        raise DataError(f"the encoder gave shape {tuple(encoded.shape)} for {len(there)} texts")
    features = torch.zeros(len(texts.items), encoded.shape[1])
    features[torch.tensor(there)] = encoded
    write_text_features(out, features, texts.items, {"model": model})
    return len(there), encoded.shape[1]
