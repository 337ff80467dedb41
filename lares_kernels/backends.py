"""Which program runs a call: the registry of backends and the choice among them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lares_kernels.backward import RefineGradients, refine_backward, refine_forward
from lares_kernels.call import RefineCall
from lares_kernels.cpu import CpuBackend
from lares_kernels.equations import Parameters, RefineResult
from lares_kernels.errors import BackendError

ENVIRONMENT_VARIABLE = "LARES_BACKEND"
_log = logging.getLogger(__name__)
_asked_for: ContextVar[str | None] = ContextVar("lares_backend", default=None)


class Backend(Protocol):
    """One implementation of the recurrence, forward and backward."""

    name: str
    automatic: bool  # whether it is used without being asked for by name

    def availability(self) -> str | None:
        """None if the backend can run on this machine at all, else why not."""

    def verify(self, call: RefineCall, device_type: str) -> str | None:
        """None if the backend can serve ``call``, else why not."""

    def plan(self, call: RefineCall, device_type: str) -> str:
        """In one sentence, how the backend would run ``call``."""

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: Parameters
    ) -> tuple[RefineResult, Tensor]:
        """As :func:`lares_kernels.backward.refine_forward`; the second result is what the backend's
        own ``backward`` takes as ``kept``. ``state`` of the result is empty where the call does not
        want it."""

    def backward(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: Parameters,
        kept: Tensor,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
    ) -> RefineGradients:
        """As :func:`lares_kernels.backward.refine_backward`."""


class ReferenceBackend:
    """Plain PyTorch with the hand-written backward; runs wherever torch does."""

    name = "reference"
    automatic = True

    def availability(self) -> str | None:
        return None

    def verify(self, call: RefineCall, device_type: str) -> str | None:
        return None

    def plan(self, call: RefineCall, device_type: str) -> str:
        kept = f"{call.max_steps} states kept, steps recomputed in backward"
        if not call.config.is_recurrent:
            kept = "layers recomputed in backward"
        return (
            f"plain PyTorch on {device_type}, {call.layout.n_rows} packed tokens of "
            f"{call.layout.n_sequences} sequences, products in {call.product_dtype}; {kept}"
        )

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: Parameters
    ) -> tuple[RefineResult, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            return refine_forward(call, hidden, state, parameters)

    def backward(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: Parameters,
        kept: Tensor,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
    ) -> RefineGradients:
        with torch.autocast(hidden.device.type, enabled=False):
            return refine_backward(call, hidden, parameters, kept, g_trajectory, g_state)


class EquationsBackend(ReferenceBackend):
    """The equations as written, differentiated by autograd.

    It keeps every activation of every step. For proofs, for double backward and for ``torch.func``:
    it is used only where it is asked for.
    """

    name = "equations"
    automatic = False

    def plan(self, call: RefineCall, device_type: str) -> str:
        return f"the equations in plain PyTorch on {device_type}, differentiated by autograd"


# In order of preference of the automatic choice.
_BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (CpuBackend(), ReferenceBackend(), EquationsBackend())
}


def available_backends() -> dict[str, str]:
    """Every backend by name: ``"usable"``, or why it cannot run on this machine."""
    return {name: backend.availability() or "usable" for name, backend in _BACKENDS.items()}


def _known(name: str, source: str) -> Backend:
    if name not in _BACKENDS:
        raise BackendError(f"{source} names backend {name!r}; there are {', '.join(_BACKENDS)}")
    return _BACKENDS[name]


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every call inside the ``with`` block on backend ``name``, in this thread or task.

    Raises:
        BackendError: there is no such backend, or (from the call) it cannot serve the call.
    """
    _known(name, "use_backend")
    token = _asked_for.set(name)
    try:
        yield
    finally:
        _asked_for.reset(token)


_logged: set[tuple[str, ...]] = set()


def _log_once(chosen: str, passed_over: dict[str, str]) -> None:
    """Say, once for each set of reasons, that a faster backend could not serve a call."""
    if passed_over and tuple(passed_over.values()) not in _logged:
        _logged.add(tuple(passed_over.values()))
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        _log.warning("calls run on backend %r, because of %s", chosen, reasons)


class Choice(NamedTuple):
    """The backend chosen, and for each one passed over why."""

    backend: Backend
    passed_over: dict[str, str]


def choose(call: RefineCall, device_type: str) -> Choice:
    """The backend for a call: the one asked for, else the first that can serve it.

    Raises:
        BackendError: the backend asked for by name cannot serve the call.
    """
    name, source = _asked_for.get(), "use_backend"
    if name is None:
        name, source = os.environ.get(ENVIRONMENT_VARIABLE) or None, ENVIRONMENT_VARIABLE
    if name is not None:
        backend = _known(name, source)
        reason = backend.availability() or backend.verify(call, device_type)
        if reason is not None:
            raise BackendError(
                f"backend {name!r}, asked for by {source}, cannot run this call: {reason}"
            )
        return Choice(backend, {})
    passed_over: dict[str, str] = {}
    for candidate, backend in _BACKENDS.items():
        if not backend.automatic:
            continue
        reason = backend.availability() or backend.verify(call, device_type)
        if reason is None:
            _log_once(candidate, passed_over)
            return Choice(backend, passed_over)
        passed_over[candidate] = reason
    raise BackendError(f"no backend can run this call: {passed_over}")
