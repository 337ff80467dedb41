"""Report which kernels this machine runs: instruction sets, and all self-checks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from lares_kernels.binding import cpu_library
from lares_kernels.common.verdicts import Verdict
from lares_kernels.registry import self_check
from lares_kernels.registry.backends import CATALOGUE, REFINE, verify
from lares_kernels.spec.call import Request
from lares_kernels.spec.catalogue_call import CatalogueRequest
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.errors import PlanFailure

_WIDTH, _WINDOW = 64, 50
_CORES = {
    "attention": CoreConfig(_WIDTH, 2, 4 * _WIDTH, 2, dropout=0.5, attn_dropout=0.5),
    "filter": CoreConfig(_WIDTH, 2, 4 * _WIDTH, 2, mixer="filter", window=_WINDOW, dropout=0.5),
    "bsarec": CoreConfig(_WIDTH, 2, 4 * _WIDTH, 2, mixer="bsarec", window=_WINDOW, dropout=0.5),
}
NAMES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Row(NamedTuple):
    """Describe a line of the table.

    Attributes:
        kernels: backend, and on a CPU the instruction set.
        what: mixer or op, and precision.
        verdict: result of the check, or why there was none.
    """

    kernels: str
    what: str
    verdict: Verdict | str


def instruction_sets() -> dict[str, str]:
    """Return the CPU kernel's instruction set for each precision, and what else there is, in words."""
    if isinstance(cpu_library.load(), str):
        return {}
    found = {}
    for precision in cpu_library.PRECISIONS:
        used = cpu_library.instruction_set_in_use(precision)
        others = [name for name in cpu_library.instruction_sets(precision) if name != used]
        found[f"cpu in {precision}"] = f"{used} (available too: {', '.join(others) or 'none'})"
    return found


def check_all() -> Iterator[Row]:
    """Run every check afresh, one row after the other as they come.

    The GPU that is checked is torch's current one.
    """
    device_types = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name in ("cpu", "triton", "cuda"):
        reason = REFINE.named(name).availability()
        if reason is not None:
            yield Row(name, "", reason)
            continue
        for device_type in device_types:
            yield from _of_backend(name, device_type)


def _of_backend(name: str, device_type: str) -> Iterator[Row]:
    for precision, dtype in NAMES.items():
        for kernels, chosen in _builds(name, precision):
            with chosen:
                for mixer, config in _CORES.items():
                    yield from _core(
                        name, kernels, f"{mixer} {precision}", config, device_type, dtype
                    )
                yield from _catalogue(name, kernels, f"catalogue {precision}", device_type, dtype)


def _builds(name: str, precision: str) -> list[tuple[str, contextlib.AbstractContextManager[None]]]:
    """Return the builds of a backend: each instruction set of the CPU's that serves a precision."""
    if name != "cpu":
        return [(name, contextlib.nullcontext())]
    if precision not in cpu_library.PRECISIONS:
        return []
    sets = cpu_library.instruction_sets(precision)
    return [(f"cpu, {isa}", cpu_library.use_instruction_set(isa)) for isa in sets]


def _core(
    name: str, kernels: str, what: str, config: CoreConfig, device_type: str, dtype: torch.dtype
) -> Iterator[Row]:
    backend, reference = REFINE.named(name), REFINE.named("reference")
    if verify(backend, Request(config, device_type, dtype)) is None:
        config = self_check.small_config(config) if backend.any_size else config
        request = Request(config, device_type, dtype)
        yield _row(
            kernels,
            what,
            device_type,
            partial(self_check.check_refine, backend, reference, request),
        )


def _catalogue(
    name: str, kernels: str, what: str, device_type: str, dtype: torch.dtype
) -> Iterator[Row]:
    if name not in CATALOGUE.backends:
        return
    backend, reference = CATALOGUE.named(name), CATALOGUE.named("reference")
    request = CatalogueRequest(_WIDTH, device_type, dtype)
    if verify(backend, request) is None:
        yield _row(
            kernels,
            what,
            device_type,
            partial(self_check.check_catalogue, backend, reference, request),
        )


def _row(kernels: str, what: str, device_type: str, check: Callable[[], Verdict]) -> Row:
    """Return what a check finds, or that the kernels do not start."""
    try:
        return Row(kernels, what, check())
    except PlanFailure as failure:
        device = self_check.device_name(device_type)
        return Row(kernels, what, Verdict(kernels, device, {}, {}, 0.0, raised=str(failure)))
