"""Register the backends of both ops and choose among them.

It imports no backend: each backend's module registers it. This package's own are imported at the first
use of the registry (``own_backends.py``), a third party's with its own module::

    register(MyBackend())  # of ``refine``
    register_catalogue(MyCatalogue())  # of the catalogue ops, under the same name

From then on ``use_backend`` knows its name, and one that is ``automatic`` is chosen by its
``preference``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lares_kernels.common.constant_result import constant_result
from lares_kernels.common.devices import is_capturing, on_device
from lares_kernels.registry import self_check
from lares_kernels.registry.circumstances import circumstances, getenv
from lares_kernels.spec.call import Given, GivenBackward, RefineCall, Request
from lares_kernels.spec.catalogue_call import (
    AskedGradients,
    CatalogueCall,
    CatalogueRequest,
    Operands,
)
from lares_kernels.spec.errors import BackendError, PlanFailure
from lares_kernels.spec.options import CallOptions
from lares_kernels.spec.serves import Serves, ServesCatalogues, ServesCores

ENVIRONMENT_VARIABLE = "LARES_BACKEND"
_OWN = "lares_kernels.own_backends"
_log = logging.getLogger(__name__)
_IN_BYTES = ENVIRONMENT_VARIABLE.encode()
_requested: ContextVar[str | None] = ContextVar("lares_backend", default=None)


class AnyBackend(Protocol):
    """Declare what backends of all ops tell about themselves.

    Attributes:
        name: identifies the backend in ``use_backend`` and ``LARES_BACKEND``.
        preference: the automatic backend with the greatest one that serves a call runs it; among equal
            ones, the last registered.
        automatic: it is used without being requested by name.
        any_size: the same code runs for all sizes of a core and widths of an item.
        starts_kernels: a device may turn out to be unable to compile or start its kernels.
    """

    name: str
    preference: int
    automatic: bool
    any_size: bool
    starts_kernels: bool

    @property
    def devices(self) -> tuple[str, ...] | None:
        """Return the device types that tensors may be on, or None for all."""

    @property
    def serves(self) -> Serves:
        """Declare the calls that the backend has code for; all others are refused."""

    def availability(self) -> str | None:
        """Return None if the backend can run on this machine at all, else the reason."""

    def build(self, product_dtype: torch.dtype) -> str | None:
        """Identify the code that would run by a digest; None if it needs no check."""


class Backend(AnyBackend, Protocol):
    """Implement the recurrence, forward and backward."""

    @property
    def serves(self) -> ServesCores:
        """Declare the calls that the backend has code for; all others are refused."""

    def plan(self, call: RefineCall, device_type: str) -> str:
        """Describe in one sentence how the backend would run ``call``."""

    def forward(self, call: RefineCall, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        """Run the recurrence without autograd.

        Args:
            call: the call to run; its values are not checked yet.
            given: ``hidden`` as the caller has it, padded or packed; the state of
                ``call.state_shape``, or None to draw it or start from zero (``call``); parameters in
                the order of :func:`lares_kernels.spec.parameters.parameter_shapes`.

        Returns:
            trajectory (S, T, d); final state of ``call.state_shape``, empty unless requested;
            ``call.kept_size`` numbers for ``backward`` of the same backend; all in the state's type.
            Backends with ``starts_kernels``, and ``reference``, read each other's: see
            :func:`lares_kernels.reference.backend.kept_states`.

        Raises:
            PlanFailure: none of its plans could be compiled and started on the device.
        """

    def backward(self, call: RefineCall, given: GivenBackward) -> list[Tensor]:
        """Return gradients of hidden, of every parameter, and of the state if there is one."""


class CatalogueBackend(AnyBackend, Protocol):
    """Implement the catalogue ops.

    Ids of the operands have been checked on a CPU. Results are at least float32. An op raises
    ``PlanFailure`` where its kernels could not be compiled and started on the device.
    """

    @property
    def serves(self) -> ServesCatalogues:
        """Declare the calls that the backend has code for; all others are refused."""

    def log_probability(
        self, call: CatalogueCall, given: Operands, wants_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute log-probabilities of ``chosen`` (N,), log-normalisers (N,), entropies (N,) or
        (0,)."""

    def gradients(
        self, call: CatalogueCall, given: Operands, asked: AskedGradients
    ) -> tuple[Tensor, Tensor]:
        """Compute gradients of queries (N, d) and items (V, d); (0,) for one that is not wanted."""

    def top_k(self, call: CatalogueCall, given: Operands, k: int) -> tuple[Tensor, Tensor]:
        """Return the ``k`` best scores (R, k) and ids, best first; -inf and -1 past the last item."""

    def ranks(self, call: CatalogueCall, given: Operands) -> Tensor:
        """Count other items that score at least as high as the chosen one, (R,) int64; NaN: -1."""


B = TypeVar("B", bound=AnyBackend)
R = TypeVar("R", Request, CatalogueRequest)
_T = TypeVar("_T")
_CHOSEN = "auto:"  # before the name of a backend that was not requested


def verify(backend: AnyBackend, request: Request | CatalogueRequest) -> str | None:
    """Return why a backend has no code for such calls; None if it has."""
    devices = backend.devices
    if devices is not None and request.device_type not in devices:
        return f"tensors are on {request.device_type}"
    return backend.serves.reason(request)


@dataclass(frozen=True)
class Choice(Generic[B]):
    """Name the chosen backend, and the reason for each one passed over."""

    backend: B
    passed_over: dict[str, str]


class Registry(Generic[B, R]):
    """Hold the backends of an op and the choices made among them.

    Args:
        call: noun for a call of the op, in messages.
        failure: compares a backend's kernels with the reference; why they must not serve calls, or
            None.
    """

    def __init__(self, call: str, failure: Callable[[Any, Any, Any], str | None]) -> None:
        self._call, self._failure = call, failure
        self._registered: dict[str, B] = {}
        self._choices: dict[Hashable, Choice[B]] = {}
        self._refusals: dict[Hashable, str | None] = {}

    @property
    def backends(self) -> dict[str, B]:
        """Return all backends by name, in order of preference."""
        _import_own()
        return self._registered

    def register(self, backend: B) -> None:
        """Add a backend.

        Raises:
            BackendError: there is one of that name.
        """
        if backend.name in self._registered:
            raise BackendError(f"there is a backend {backend.name!r} already; give it another name")
        ordered = sorted([backend, *self._registered.values()], key=lambda b: -b.preference)
        self._registered.clear()
        self._registered.update({each.name: each for each in ordered})
        self.forget()

    def forget(self) -> None:
        """Choose anew for every call."""
        _partly_served.cache_clear()
        self._choices.clear()
        self._refusals.clear()

    def named(self, name: str, source: str = "the operator") -> B:
        """Return the backend of that name.

        Raises:
            BackendError: there is none; ``source`` says who named it.
        """
        if name not in self.backends:
            raise BackendError(
                f"{source} names backend {name!r}; of this {self._call} there are "
                f"{', '.join(self.backends)}"
            )
        return self.backends[name]

    def why_not(self, backend: B, request: R) -> str | None:
        """Return why a backend cannot serve such calls, or must not; None if it may."""
        return (
            backend.availability()
            or verify(backend, request)
            or self._failure(backend, self.backends["reference"], request)
        )

    def choose(self, request: R, index: int | None = None) -> Choice[B]:
        """Return the backend for a call: the requested one, else the first that can serve it.

        Args:
            request: what calls.
            index: of the tensors' device; None for torch's current one.

        Raises:
            BackendError: the backend requested by name cannot serve the call.
        """
        return self._kept_choice(*requested_backend(), request, index)

    def check_serves(self, name: str, request: R, index: int | None = None) -> None:
        """Raise ``BackendError`` unless there is a backend of that name that can serve such calls.

        Args:
            name: of the backend; :meth:`run` asks about one that another may stand in for.
            request: what calls.
            index: of the tensors' device; None for torch's current one.
        """
        if may_pass_on(name):
            self.named(plain_name(name))
        else:
            self._kept_choice(name, "the operator", request, index)

    def run(
        self, name: str, request: R, index: int | None, run: Callable[[B], _T]
    ) -> tuple[_T, dict[str, str]]:
        """Run a call on a backend that was chosen for it, or on the next one where it does not start.

        Args:
            name: as :func:`operators_name` gives it. Another machine may have chosen that backend for
                a program that was exported there, so it is asked, too, whether it serves the call.
            request: what calls.
            index: of the tensors' device.
            run: runs it on one.

        Returns:
            What ``run`` gives, and for each backend passed over why, which is logged once.

        Raises:
            BackendError: no automatic backend is left.
        """
        chosen, names = plain_name(name), [*self.backends]
        passed_over: dict[str, str] = {}
        for candidate in names[names.index(chosen) :]:
            backend = self.backends[candidate]
            if candidate != chosen and not backend.automatic:
                continue
            reason = self._kept_refusal(backend, request, index)
            if reason is None:
                try:
                    result = run(backend)
                except PlanFailure as failure:
                    reason = str(failure)
                else:
                    log_once(candidate, passed_over)
                    return result, passed_over
            passed_over[candidate] = reason
        raise BackendError(f"no backend can run this {self._call}: {passed_over}")

    def _kept_refusal(self, backend: B, request: R, index: int | None) -> str | None:
        key = backend.name, request, circumstances(request.device_type, index)
        if key not in self._refusals:
            with on_device(request.device_type, index):
                reason = self.why_not(backend, request)
            if is_capturing(request.device_type):  # nothing is checked then
                return reason
            self._refusals[key] = reason
        return self._refusals[key]

    def _kept_choice(
        self, name: str | None, source: str, request: R, index: int | None
    ) -> Choice[B]:
        key = name, source, request, circumstances(request.device_type, index)
        choice = self._choices.get(key)
        if choice is None:
            with on_device(request.device_type, index):
                choice = self._choose(name, source, request)
                if not is_capturing(request.device_type):  # nothing is checked then
                    self._choices[key] = choice
        return choice

    def _choose(self, name: str | None, source: str, request: R) -> Choice[B]:
        if name is not None:
            backend = self.named(name, source)
            reason = self.why_not(backend, request)
            if reason is not None:
                raise BackendError(
                    f"backend {name!r}, asked for by {source}, cannot run this {self._call}: {reason}"
                )
            return Choice(backend, {})
        passed_over: dict[str, str] = {}
        for candidate, backend in self.backends.items():
            if not backend.automatic:
                continue
            reason = self.why_not(backend, request)
            if reason is None:
                log_once(candidate, passed_over)
                return Choice(backend, passed_over)
            passed_over[candidate] = reason
        raise BackendError(f"no backend can run this {self._call}: {passed_over}")


REFINE: Registry[Backend, Request] = Registry("call", self_check.refine_failure)
CATALOGUE: Registry[CatalogueBackend, CatalogueRequest] = Registry(
    "catalogue op", self_check.catalogue_failure
)


def register(backend: Backend) -> None:
    """Make a backend of ``refine`` known.

    Raises:
        BackendError: there is one of that name.
    """
    REFINE.register(backend)


def register_catalogue(backend: CatalogueBackend) -> None:
    """Make a backend of the catalogue ops known.

    Raises:
        BackendError: there is one of that name.
    """
    CATALOGUE.register(backend)


@cache
def _import_own() -> None:
    """Import the modules that register this package's own backends."""
    importlib.import_module(_OWN)


def available_backends() -> dict[str, str]:
    """Return every backend by name: ``"usable"``, or why it cannot run on this machine."""
    return {name: each.availability() or "usable" for name, each in _all_backends().items()}


def _all_backends() -> dict[str, AnyBackend]:
    """Return the backends of any op by name."""
    return {**REFINE.backends, **CATALOGUE.backends, **REFINE.backends}


@cache
def _partly_served() -> bool:
    every = CallOptions._field_defaults.keys()
    return any(
        backend.serves.options is not None and not every <= {*backend.serves.options}
        for backend in REFINE.backends.values()
    )


@constant_result
def partly_served() -> bool:
    """Return True if a backend lacks options of a call, so that calls must list theirs."""
    return _partly_served()


def options_of(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which options of a call are not at their defaults, where a backend may leave one out.

    Args:
        told: options by name, fields of :class:`CallOptions`.
    """
    if not partly_served():
        return ()
    defaults = CallOptions._field_defaults
    return tuple(name for name, value in told.items() if value != defaults.get(name, value))


def operators_name(backend: AnyBackend) -> str:
    """Return the name by which operators run a call on ``backend``, or, if it was not requested by name
    and does not start, on the next one."""
    asked, _ = requested_backend()
    return _CHOSEN + backend.name if asked is None and backend.starts_kernels else backend.name


def plain_name(name: str) -> str:
    """Return the backend's own name from that of :func:`operators_name`."""
    return name.removeprefix(_CHOSEN)


def may_pass_on(name: str) -> bool:
    """Return True if :func:`operators_name` lets another backend run what does not start."""
    return name.startswith(_CHOSEN)


def _known(name: str, source: str) -> str:
    if name not in REFINE.backends and name not in CATALOGUE.backends:
        raise BackendError(
            f"{source} names backend {name!r}; there are {', '.join(_all_backends())}"
        )
    return name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every call inside the ``with`` block on backend ``name``, in this thread or task.

    A program that ``torch.compile`` has compiled keeps the backend it was compiled with.

    Raises:
        BackendError: there is no such backend, or (from the call) it cannot serve the call.
    """
    _known(name, "use_backend")
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


def requested_backend() -> tuple[str | None, str]:
    """Return (name or None, its source) of the backend that calls here were told to run on."""
    name, source = _requested.get(), "use_backend"
    if name is None:
        found, source = getenv(_IN_BYTES), ENVIRONMENT_VARIABLE
        name = os.fsdecode(found) if found else None
    return None if name is None else _known(name, source), source


_logged: set[tuple[str, ...]] = set()


def log_once(chosen: str, passed_over: dict[str, str]) -> None:
    """Log, once for each set of reasons, that a faster backend could not serve a call."""
    if passed_over and tuple(passed_over.values()) not in _logged:
        _logged.add(tuple(passed_over.values()))
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        _log.warning("calls run on backend %r, because of %s", chosen, reasons)
