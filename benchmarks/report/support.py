"""Which backend serves which choice, asked of the backends: ``python -m benchmarks.report.support``.

Writes docs/support.md. Nothing runs, and no card is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.core.settings import ROOT
from lares_kernels import CoreConfig
from lares_kernels.backends import backend_named
from lares_kernels.call import PRECISIONS, Request
from lares_kernels.catalogue.backends import catalogue_backend
from lares_kernels.choices import Activation, Adapter, DropoutOf, Mixer, Norm, Padding
from lares_kernels.cuda import library as cuda_library

PAGE = ROOT / "docs" / "support.md"
DEVICES = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda", "reference": "cpu", "equations": "cpu"}
# Of each device's products the one that all of its kernels have.
_PRODUCTS = {"cpu": torch.float32, "cuda": torch.bfloat16}
_WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 4096)
_WINDOW = {"window": 50}
_TEXT = """# What is supported

Written by `python -m benchmarks.report.support`, which asks the backends. What one does not serve
it refuses with the reason; without a backend asked for by name the next one runs, at last the
reference. `cpu` is C++, for processors; `triton` and `cuda` are for cards, and have not run on one
yet; `reference` and `equations` are PyTorch, for every device.

## The op

"""


def _cores() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield option, value, and the arguments of a core that has it."""
    for option, choice in (
        ("adapter", Adapter),
        ("mixer", Mixer),
        ("activation", Activation),
        ("norm", Norm),
        ("padding", Padding),
        ("dropout_of", DropoutOf),
    ):
        for value in choice.texts():
            more = _WINDOW if option == "mixer" and value != "attention" else {}
            yield option, value, {option: value, **more}
    yield "inner_dropout", "above 0", {"inner_dropout": 0.1}
    for width in _WIDTHS:
        yield "d_model", str(width), {"d_model": width, "n_heads": max(1, width // 32)}


def _mark(reason: str | None) -> str:
    return "yes" if reason is None else "no"


def _rows() -> Iterator[tuple[str, ...]]:
    for option, value, arguments in _cores():
        config = CoreConfig(**{"d_model": 64, **arguments})
        served = (
            backend_named(name).verify(Request(config, device, _PRODUCTS[device]))
            for name, device in DEVICES.items()
        )
        yield f"`{option}`", value, *map(_mark, served)
    for precision, dtype in PRECISIONS.items():
        served = (
            backend_named(name).verify(Request(CoreConfig(), device, dtype))
            for name, device in DEVICES.items()
        )
        yield "precision", precision, *map(_mark, served)


def _catalogue_rows() -> Iterator[tuple[str, ...]]:
    backends = {name: device for name, device in DEVICES.items() if name != "cuda"}
    for width in _WIDTHS:
        asked = (
            catalogue_backend(name).verify(device, _PRODUCTS[device], width)
            for name, device in backends.items()
        )
        yield "width", str(width), *map(_mark, asked)
    for precision, dtype in PRECISIONS.items():
        asked = (
            catalogue_backend(name).verify(device, dtype, 64) for name, device in backends.items()
        )
        yield "precision", precision, *map(_mark, asked)


def _table(names: list[str], rows: Iterator[tuple[str, ...]]) -> str:
    heads = ["option", "value", *(f"`{name}`" for name in names)]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page() -> str:
    """Return the text of docs/support.md."""
    # A library that is built for the emulator serves another device.
    with patch.object(cuda_library, "device_type", lambda: "cuda"):
        of_op = _table([*DEVICES], _rows())
    others = [name for name in DEVICES if name != "cuda"]
    catalogue = _table(others, _catalogue_rows())
    return f"{_TEXT}{of_op}\n## The catalogue ops\n\n`cuda` leaves them to `triton`.\n\n{catalogue}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
