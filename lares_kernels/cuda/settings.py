"""Hold launch settings of the CUDA kernels, among which only measurement finds the fastest.

Results are the same but for the order in which some gradients are summed. Nothing is tuned while a
program runs: ``LARES_CUDA_SETTINGS`` names a folder, whose file ``cuda_FAMILY.json``, such as
``python -m benchmarks.gpu.sweep`` writes, is a JSON object with the fields of :class:`Settings` that
differ from the defaults.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from lares_kernels.binding.cuda_library import Card
from lares_kernels.common.settings_files import (
    named_file,
    named_files,
    read_json,
    replaced,
    require_known,
)

ENVIRONMENT_VARIABLE = "LARES_CUDA_SETTINGS"
WEIGHTS = ("resident", "streamed")
_MAX_PRODUCT_WARPS = 64  # that a multiprocessor can hold


@dataclass(frozen=True)
class Settings:
    """Describe how calls are launched on a family of cards.

    Attributes:
        forward_weights, backward_weights: where a layer's matrices are, if there is a choice: kept in
            shared memory (``resident``) where all fit it, or read again by every layer (``streamed``),
            which leaves more of that memory to the nearest cache. Rows of 32 are always resident, those
            of 128 always streamed. Calls of few sequences (csrc/cuda/split.hpp) have their own rules.
        products_ahead: products of weight gradients take operands that were loaded one tile before.
        sides_transposed: backward stores operands that many warps multiply in the products' layout, so
            that each is transposed once. Only with resident weights in backward: other kernels have no
            registers for it.
        product_warps: warps of a multiprocessor for these products; they split the tokens.
        largest_cache: kernels ask for no more of the memory that shared memory and the L1 cache divide
            than blocks take, leaving the rest to the cache, instead of the driver's choice.
        forward_staged, backward_staged: streamed weights pass through shared memory in pieces, each of
            which is read once for all warps of a block (csrc/cuda/stage.hpp), where two pieces fit
            beside what one tile needs; else each warp reads all of them.
    """

    forward_weights: str = WEIGHTS[0]
    backward_weights: str = WEIGHTS[0]
    products_ahead: bool = False
    sides_transposed: bool = False
    product_warps: int = 16
    largest_cache: bool = False
    forward_staged: bool = False
    backward_staged: bool = False


SHIPPED = Settings()


def family_of(card: Card) -> str:
    """Return the family of a card, by the first number of its compute capability: ``sm90``."""
    return f"sm{card.capability[0]}0"


def file_name(family: str) -> str:
    """Return the name of a family's file."""
    return f"cuda_{family}.json"


def files_of_settings() -> list[Path]:
    """Return the user's files, for who wants to know what kernels are launched by."""
    return named_files(ENVIRONMENT_VARIABLE, file_name("*"))


_replaced: dict[str, Settings] = {}


@cache
def settings(family: str) -> Settings:
    """Return the settings of a family of cards; a file is read once in a process.

    Raises:
        ValueError: ``LARES_CUDA_SETTINGS`` names no folder, or its file holds an invalid value.
    """
    if family in _replaced:
        return _replaced[family]
    own = named_file(ENVIRONMENT_VARIABLE, file_name(family))
    return SHIPPED if own is None else read_settings(own)


def use_settings(family: str, those: Settings) -> AbstractContextManager[None]:
    """Launch a family's calls by ``those`` settings within the block, in the whole process."""
    return replaced(_replaced, family, those, settings.cache_clear)


def read_settings(path: Path) -> Settings:
    """Return what a file holds.

    Raises:
        ValueError: it cannot be read, or a value is invalid; the message names file and field.
    """
    found = read_json(path, dict, "an object of settings, such as {}")
    require_known(str(path), found, [field.name for field in fields(Settings)])
    for name, value in found.items():
        _require(path, name, value)
    return Settings(**found)


def _require(path: Path, name: str, value: Any) -> None:
    default = getattr(SHIPPED, name)
    if isinstance(default, str):
        allowed, what = value in WEIGHTS, " or ".join(f'"{where}"' for where in WEIGHTS)
    elif isinstance(default, bool):
        allowed, what = isinstance(value, bool), "true or false"
    else:
        whole = isinstance(value, int) and not isinstance(value, bool)
        allowed = whole and 1 <= value <= _MAX_PRODUCT_WARPS
        what = f"a whole number from 1 to {_MAX_PRODUCT_WARPS}"
    if not allowed:
        raise ValueError(f"{path}: {name} is {value!r}; it must be {what}")


def write_settings(path: Path, those: Settings) -> None:
    """Write settings, without the fields that are as by default."""
    shipped = asdict(SHIPPED)
    told = {name: value for name, value in asdict(those).items() if value != shipped[name]}
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
