"""Which program runs a catalogue op: the same names and the same choice as for the recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from lares_kernels import self_check
from lares_kernels.backends import (
    Refusals,
    asked_backend,
    first_that_starts,
    log_once,
    may_pass_on,
    plain_name,
)
from lares_kernels.catalogue.call import CatalogueCall, Operands
from lares_kernels.catalogue.cpu import CpuCatalogue
from lares_kernels.catalogue.reference import EquationsCatalogue, ReferenceCatalogue
from lares_kernels.circumstances import Circumstances, circumstances, is_capturing, on_device
from lares_kernels.errors import BackendError
from lares_kernels.triton.catalogue import TritonCatalogue


class CatalogueBackend(Protocol):
    """One implementation of the catalogue ops.

    Ids of the operands have been checked on a CPU. Results are at least float32. An op raises
    ``PlanFailure`` where its kernels could not be compiled and started on the device.
    """

    name: str
    automatic: bool  # whether it is used without being asked for by name
    any_size: bool  # whether the same code runs whatever the width
    starts_kernels: (
        bool  # whether a device may turn out to be unable to compile or start its kernels
    )

    def availability(self) -> str | None:
        """None if the backend can run on this machine at all, else why not."""

    def verify(self, device_type: str, product_dtype: torch.dtype, width: int) -> str | None:
        """None if the backend can serve such calls, else why not."""

    def build(self, product_dtype: torch.dtype) -> str | None:
        """Identify the code that would run, by what it is made of; None if it needs no check."""

    def log_probability(
        self, call: CatalogueCall, given: Operands, wants_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of ``chosen`` (N,), log-normalisers (N,), entropies (N,) or (0,)."""

    def gradients(
        self,
        call: CatalogueCall,
        given: Operands,
        normaliser: Tensor,
        g_log_probability: Tensor,
        wants: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        """Gradients of queries (N, d) and items (V, d); (0,) for one that is not wanted."""

    def top_k(self, call: CatalogueCall, given: Operands, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` best scores (R, k) and their ids, best first; -inf and -1 where items ran out."""

    def ranks(self, call: CatalogueCall, given: Operands) -> Tensor:
        """How many other items score at least as high as the chosen one, (R,) int64; -1 for NaN."""


_BACKENDS: dict[str, CatalogueBackend] = {
    backend.name: backend
    for backend in (CpuCatalogue(), TritonCatalogue(), ReferenceCatalogue(), EquationsCatalogue())
}


def check_serves(
    name: str, device_type: str, product_dtype: torch.dtype, width: int, index: int | None = None
) -> None:
    """Raise ``BackendError`` unless there is a backend of that name that can serve such calls."""
    plain = plain_name(name)
    if plain not in _BACKENDS:
        raise BackendError(f"the operator names backend {name!r}; there are {', '.join(_BACKENDS)}")
    if may_pass_on(name):
        return  # run_catalogue() asks
    _kept_choice(name, "the operator", (device_type, product_dtype, width), index)


def catalogue_backend(name: str) -> CatalogueBackend:
    """The backend of that name."""
    return _BACKENDS[name]


_T = TypeVar("_T")
_refusals = Refusals()


def run_catalogue(
    name: str,
    device: torch.device,
    product_dtype: torch.dtype,
    width: int,
    run: Callable[[CatalogueBackend], _T],
) -> _T:
    """Run an op on a backend, or on the next one where it does not start and nobody asked for it.

    ``name`` is as :func:`lares_kernels.backends.operators_name` gives it.
    """
    if not may_pass_on(name):
        return run(_BACKENDS[name])

    call = (device.type, product_dtype, width)
    now = circumstances(device.type, device.index)

    def refusal(backend: CatalogueBackend) -> str | None:
        def ask() -> str | None:
            with on_device(device.type, device.index):
                return why_not(backend, *call)

        return _refusals.of((backend.name, call, now), device.type, ask)

    found, _ = first_that_starts(name, _BACKENDS, refusal, run)
    return found


def choose_catalogue(
    device_type: str, product_dtype: torch.dtype, width: int, index: int | None = None
) -> CatalogueBackend:
    """The backend for a call: the one asked for, else the first that can serve it.

    Args:
        device_type: of the tensors.
        product_dtype: of the products.
        width: of an item.
        index: of the tensors' device; None for torch's current one.

    Raises:
        BackendError: the backend asked for by name cannot serve the call.
    """
    return _kept_choice(*asked_backend(), (device_type, product_dtype, width), index)


def why_not(
    backend: CatalogueBackend, device_type: str, product_dtype: torch.dtype, width: int
) -> str | None:
    """Return why a backend cannot serve such calls, or must not; None if it may."""
    call = (device_type, product_dtype, width)
    return (
        backend.availability()
        or backend.verify(*call)
        or self_check.catalogue_failure(backend, _BACKENDS["reference"], *call)
    )


_Call = tuple[str, torch.dtype, int]  # device type, type of the products, width
_choices: dict[tuple[str | None, str, _Call, Circumstances], CatalogueBackend] = {}


def _kept_choice(name: str | None, source: str, call: _Call, index: int | None) -> CatalogueBackend:
    device_type = call[0]
    key = name, source, call, circumstances(device_type, index)
    choice = _choices.get(key)
    if choice is None:
        with on_device(device_type, index):
            choice = _choose(name, source, *call)
            if not is_capturing(device_type):  # nothing is checked then
                _choices[key] = choice
    return choice


def _choose(
    name: str | None, source: str, device_type: str, product_dtype: torch.dtype, width: int
) -> CatalogueBackend:
    reasons: dict[str, str] = {}
    for candidate, backend in _BACKENDS.items():
        if candidate != name and (name is not None or not backend.automatic):
            continue
        reason = why_not(backend, device_type, product_dtype, width)
        if reason is None:
            log_once(candidate, reasons)
            return backend
        if name is not None:
            raise BackendError(
                f"backend {name!r}, asked for by {source}, cannot run this catalogue op: {reason}"
            )
        reasons[candidate] = reason
    raise BackendError(f"no backend can run this catalogue op: {reasons}")
