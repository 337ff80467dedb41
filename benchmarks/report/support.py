"""Which backend serves which choice, asked of the backends: ``python -m benchmarks.report.support``.

Writes docs/reference/support.md. Nothing runs, and no card is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.core.settings import ROOT
from benchmarks.report.markdown import filled
from lares_kernels import CoreConfig
from lares_kernels.binding import cuda_library
from lares_kernels.registry.backends import CATALOGUE, REFINE, verify
from lares_kernels.spec.call import PRECISIONS, Request
from lares_kernels.spec.catalogue_call import CatalogueRequest
from lares_kernels.spec.choices import OF_CORES
from lares_kernels.spec.options import CallOptions

PAGE = ROOT / "docs" / "reference" / "support.md"
# Of each device's products the one that all of its kernels have.
_PRODUCTS = {"cpu": torch.float32, "cuda": torch.bfloat16}
_WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 4096)


def _served(registry: Any, name: str, asked: Request | CatalogueRequest) -> str:
    """Ask a backend about calls on a device that it serves; the cell of the table."""
    backend = registry.named(name)
    device = "cpu" if backend.devices is None else backend.devices[0]
    products = asked.product_dtype or _PRODUCTS[device]
    reason = verify(backend, asked._replace(device_type=device, product_dtype=products))
    return "yes" if reason is None else "no"


def _cores() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield option, value, and the arguments of a core that has it."""
    for option, choice in OF_CORES.items():
        for value in choice.texts():
            more = {"window": 50} if option == "mixer" and value != "attention" else {}
            yield f"`{option}`", value, {option: value, **more}
    yield "`inner_dropout`", "above 0", {"inner_dropout": 0.1}
    for width in _WIDTHS:
        yield "`d_model`", str(width), {"d_model": width, "n_heads": max(1, width // 32)}


def _rows(backends: list[str]) -> Iterator[tuple[str, ...]]:
    anywhere = Request(CoreConfig(), "", None)  # type: ignore[arg-type]
    asked = [
        *((*names, anywhere._replace(config=CoreConfig(**core))) for *names, core in _cores()),
        *(
            ("precision", each, anywhere._replace(product_dtype=PRECISIONS[each]))
            for each in PRECISIONS
        ),
        *(
            ("call", f"`{each}`", anywhere._replace(options=(each,)))
            for each in CallOptions._field_defaults
        ),
    ]
    for *names, request in asked:
        yield *names, *(_served(REFINE, name, request) for name in backends)
    serves = [REFINE.named(name).serves for name in backends]
    yield "width of a head", "", *(_most(each.widest_head) for each in serves)
    yield "tokens of a sequence", "", *(_most(each.longest) for each in serves)
    yield "", "with `attn_dropout`", *(_most(each.longest_dropping) for each in serves)


def _catalogue_rows(backends: list[str]) -> Iterator[tuple[str, ...]]:
    asked = [("width", str(width), CatalogueRequest(width, "", None)) for width in _WIDTHS]  # type: ignore[arg-type]
    asked += [
        ("precision", each, CatalogueRequest(64, "", PRECISIONS[each])) for each in PRECISIONS
    ]
    for *names, request in asked:
        yield *names, *(_served(CATALOGUE, name, request) for name in backends)
    yield "items", "", *(_most(CATALOGUE.named(name).serves.most_items) for name in backends)


def _most(value: int | None) -> str:
    return "any" if value is None else f"up to {value:,}"


def _lines(table: str, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of a table, whose columns from the third on are backends."""
    backends = [column.strip("`") for column in columns[2:]]
    return _rows(backends) if table == "op" else _catalogue_rows(backends)


def page() -> str:
    """Return the text of docs/reference/support.md."""
    # A library that is built for the emulator serves another device.
    with patch.object(cuda_library, "device_type", lambda: "cuda"):
        return filled("support", {}, _lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
