"""Which backend serves which choice, asked of the backends: ``python -m benchmarks.report.support``.

Writes docs/reference/support.md. Nothing runs, and no card is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.core.settings import ROOT
from lares_kernels import CoreConfig
from lares_kernels.binding import cuda_library
from lares_kernels.registry.backends import CATALOGUE, REFINE, verify
from lares_kernels.spec.call import PRECISIONS, Request
from lares_kernels.spec.catalogue_call import CatalogueRequest
from lares_kernels.spec.choices import OF_CORES
from lares_kernels.spec.options import CallOptions

PAGE = ROOT / "docs" / "reference" / "support.md"
BACKENDS = ("cpu", "triton", "cuda", "reference", "equations")
# Of each device's products the one that all of its kernels have.
_PRODUCTS = {"cpu": torch.float32, "cuda": torch.bfloat16}
_WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 4096)
_WINDOW = {"window": 50}
_TEXT = """# What is supported

Written by `python -m benchmarks.report.support`, which asks the backends. What one does not serve it
refuses with the reason; without a backend asked for by name the next one runs, at last the reference.
`cpu` is C++, for processors; `triton` and `cuda` are for cards, and have not run on one yet;
`reference` and `equations` are PyTorch, for every device. Somebody else's backend declares the same of
itself, is made known by `register` of `lares_kernels/backends.py`, and held to it.

## The op

"""


def _cores() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield option, value, and the arguments of a core that has it."""
    for option, choice in OF_CORES.items():
        for value in choice.texts():
            more = _WINDOW if option == "mixer" and value != "attention" else {}
            yield option, value, {option: value, **more}
    yield "inner_dropout", "above 0", {"inner_dropout": 0.1}
    for width in _WIDTHS:
        yield "d_model", str(width), {"d_model": width, "n_heads": max(1, width // 32)}


def _asked(name: str, config: CoreConfig, dtype: torch.dtype | None = None, *told: str) -> str:
    """Ask a backend of the op about calls on a device that it serves; the cell of the table."""
    device = _device(REFINE.named(name).devices)
    products = _PRODUCTS[device] if dtype is None else dtype
    return _mark(verify(REFINE.named(name), Request(config, device, products, told)))


def _asked_of_catalogue(name: str, width: int, dtype: torch.dtype | None = None) -> str:
    """Ask likewise about calls of a catalogue op."""
    device = _device(CATALOGUE.named(name).devices)
    products = _PRODUCTS[device] if dtype is None else dtype
    return _mark(verify(CATALOGUE.named(name), CatalogueRequest(width, device, products)))


def _device(types: tuple[str, ...] | None) -> str:
    return "cpu" if types is None else types[0]


def _mark(reason: str | None) -> str:
    return "yes" if reason is None else "no"


def _most(value: int | None) -> str:
    return "any" if value is None else f"up to {value:,}"


def _rows() -> Iterator[tuple[str, ...]]:
    for option, value, arguments in _cores():
        config = CoreConfig(**{"d_model": 64, **arguments})
        yield f"`{option}`", value, *(_asked(name, config) for name in BACKENDS)
    for precision, dtype in PRECISIONS.items():
        yield "precision", precision, *(_asked(name, CoreConfig(), dtype) for name in BACKENDS)
    for option in CallOptions._field_defaults:
        asked = (_asked(name, CoreConfig(), None, option) for name in BACKENDS)
        yield "call", f"`{option}`", *asked
    serves = [REFINE.named(name).serves for name in BACKENDS]
    yield "width of a head", "", *(_most(each.widest_head) for each in serves)
    yield "tokens of a sequence", "", *(_most(each.longest) for each in serves)
    yield "", "with `attn_dropout`", *(_most(each.longest_dropping) for each in serves)


def _catalogue_rows(names: list[str]) -> Iterator[tuple[str, ...]]:
    for width in _WIDTHS:
        yield "width", str(width), *(_asked_of_catalogue(name, width) for name in names)
    for precision, dtype in PRECISIONS.items():
        yield "precision", precision, *(_asked_of_catalogue(name, 64, dtype) for name in names)
    yield "items", "", *(_most(CATALOGUE.named(name).serves.most_items) for name in names)


def _table(names: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    heads = ["option", "value", *(f"`{name}`" for name in names)]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page() -> str:
    """Return the text of docs/reference/support.md."""
    # A library that is built for the emulator serves another device.
    with patch.object(cuda_library, "device_type", lambda: "cuda"):
        of_op = _table(BACKENDS, _rows())
    others = [name for name in BACKENDS if name in CATALOGUE.backends]
    catalogue = _table(others, _catalogue_rows(others))
    return f"{_TEXT}{of_op}\n## The catalogue ops\n\n`cuda` leaves them to `triton`.\n\n{catalogue}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
