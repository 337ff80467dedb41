"""Counts what a call asks of the host: launches, allocations and waits, without a card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.common import dispatcher
from lares_kernels.operators import refine as ops
from lares_kernels.spec import lengths
from lares_kernels.spec.call import RefineCall

_ALLOCATIONS = frozenset({"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"})
# What looks at a tensor's shape alone, or hands it on.
_VIEWS = frozenset(
    {"view", "_unsafe_view", "_reshape_alias", "reshape", "as_strided", "detach", "alias", "select",
     "slice", "split", "split_with_sizes", "unsqueeze", "squeeze", "expand", "transpose", "t",
     "permute", "unbind", "unflatten", "lift_fresh", "is_same_size"}
)  # fmt: skip
# What PyTorch makes of several kernels.
_SEVERAL = {"select_backward": 2, "sort": 4}  # zeros and a copy; of a radix sort at least
_WAITS = frozenset({"_local_scalar_dense", "is_nonzero", "equal", "nonzero"})


def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on the CPU ask of the host what they ask on a card, where nothing looks at values."""
    monkeypatch.setattr(dispatcher, "_len_torch_dispatch_stack", lambda: 0)
    monkeypatch.setattr(RefineCall, "check_values", lambda call: None)
    rows = property(lambda call: call.n_hidden_rows * call.options.rollouts)
    monkeypatch.setattr(RefineCall, "kept_rows", rows)
    monkeypatch.setenv("LARES_SELF_CHECK", "0")


class HostCosts(TorchDispatchMode):
    """Counts torch's operations by what they cost; kernels' launches are added by who knows them.

    An operation that starts a kernel is a launch, whatever its size, and one more where it makes the
    tensor that it writes an allocation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.allocations = self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        inside: dict[str, Callable[..., Any]] = {
            "refine": ops._refine,
            "refine_backward": ops._refine_backward,
        }
        if func.namespace == "lares_kernels":
            with self:  # what the operator does counts, not the operator
                return inside[func._schema.name.split("::")[1]](*args)
        name = func._schema.name.split("::")[1]
        if name in _WAITS:
            self.waits += 1
        elif name in _ALLOCATIONS:
            self.allocations += 1
        elif name not in _VIEWS:
            self.launches[name] += _SEVERAL.get(name, 1)
            self.allocations += not name.endswith("_")
        return func(*args, **(kwargs or {}))

    def launch(self, name: str) -> None:
        """Count a kernel of our own."""
        self.launches[name] += 1

    def taken(self) -> HostCosts:
        """What was counted so far; the count begins anew."""
        found = HostCosts()
        vars(found).update(launches=self.launches, allocations=self.allocations, waits=self.waits)
        self.launches, self.allocations, self.waits = Counter(), 0, 0
        return found

    @property
    def total(self) -> int:
        """Launches."""
        return sum(self.launches.values())

    def __str__(self) -> str:
        found = ", ".join(f"{n} x {name}" for name, n in sorted(self.launches.items()))
        return (
            f"{self.total} launches ({found}), {self.allocations} allocations, {self.waits} waits"
        )


def make_inputs(width: int, packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Hidden that asks for a gradient, and lengths of its five sequences."""
    lengths = torch.tensor([3, 7, 1, 5, 20])
    if packed:
        starts = torch.zeros(6, dtype=torch.int64)
        starts[1:] = lengths.cumsum(0)
        return torch.randn(36, width, requires_grad=True), {"cu_seqlens": starts}
    return torch.randn(5, 20, width, requires_grad=True), {"lengths": lengths}


def training_step(
    backend: str, config: CoreConfig, costs: HostCosts, packed: bool = False, **options: Any
) -> tuple[HostCosts, HostCosts]:
    """Return the costs of a training step's forward and backward: the second, whose seed is new."""
    core = RecurrentCore(config)
    hidden, lengths = make_inputs(config.d_model, packed)
    options = {"num_steps": 4, "precision": "fp16", **options}
    with use_backend(backend):
        for seed in (3, 4):
            core.zero_grad()
            hidden.grad = None
            costs.taken()
            with costs:
                out = core(hidden, seed=seed, **lengths, **options)
            forward = costs.taken()
            gradient = torch.ones_like(out.last)
            with costs:
                out.last.backward(gradient)
            backward = costs.taken()
    return forward, backward


class StepCosts:
    """Tests of training steps, for backends whose files say which, and have a fixture ``costs``."""

    backend: str
    config: CoreConfig

    def test_padded(self, costs: HostCosts) -> None:
        forward, backward = training_step(self.backend, self.config, costs)
        assert forward.total <= 3, str(forward)
        assert backward.total <= 6, str(backward)
        assert forward.waits == backward.waits == 0

    def test_packed(self, costs: HostCosts) -> None:
        forward, backward = training_step(self.backend, self.config, costs, packed=True)
        assert forward.total <= 5, str(forward)
        assert backward.total <= 6, str(backward)
        assert (forward.waits, backward.waits) == (2, 0)

    def test_packed_with_the_greatest_length(
        self, costs: HostCosts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lengths, "is_free_to_read", lambda tensor: False)
        given = {"packed": True, "max_length": 20}
        forward, backward = training_step(self.backend, self.config, costs, **given)
        assert forward.total <= 4, str(forward)  # the lengths are differences of cu_seqlens
        assert backward.total <= 6, str(backward)
        assert forward.waits == backward.waits == 0

    def test_depths_of_their_own(self, costs: HostCosts) -> None:
        """They are sorted, and the greatest of them is read."""
        depths = torch.tensor([1, 4, 2, 3, 4])
        forward, backward = training_step(self.backend, self.config, costs, num_steps=depths)
        assert forward.total <= 8, str(forward)
        assert backward.total <= 6, str(backward)
        assert (forward.waits, backward.waits) == (1, 0)
