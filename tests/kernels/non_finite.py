"""What is not finite stays where it is, and is seen: the checks for every backend.

One number of an input is made NaN or infinite. Where the equations in float64 then give what is not
finite, a backend must too; sequences that do not have it get the same bits as without it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from tests.kernels.problems import exact_problem

# The third is a card's NaN, whose low bits are ones, the last one of the other sign, as x86's is.
VALUES = {
    "nan": float("nan"),
    "inf": float("inf"),
    "card's nan": struct.unpack("f", struct.pack("I", 0x7FFFFFFF))[0],
    "-inf": float("-inf"),
    "-nan": struct.unpack("f", struct.pack("I", 0xFFFFFFFF))[0],
}
LENGTHS = [3, 5, 1, 9, 20, 4]


def put(tensor: Tensor, place: int, value: float) -> None:
    """Set one number, bit for bit."""
    with torch.no_grad():
        if tensor.dtype == torch.float32:
            bits = struct.unpack("i", struct.pack("f", value))[0]
            tensor.view(torch.int32).view(-1)[place] = bits
        else:
            tensor.view(-1)[place] = value


@dataclass(frozen=True)
class Problem:
    """A core in float64, ``hidden`` (B, L, d) and a first state like it, whose every number float32
    holds exactly, and the options of a call."""

    core: RecurrentCore
    hidden: Tensor
    state: Tensor | None
    lengths: Tensor
    options: dict[str, Any]

    def results(self, backend: str, dtype: torch.dtype, **options: Any) -> dict[str, Tensor]:
        """Outputs and gradients of a linear function of them all."""
        core = self.core.to(dtype)
        inputs = {"hidden": self.hidden}
        if self.state is not None:
            inputs["state"] = self.state
        inputs = {name: t.to(dtype).requires_grad_() for name, t in inputs.items()}
        named = {**inputs, **dict(core.named_parameters())}
        state = {"state": inputs["state"]} if "state" in inputs else {}
        with use_backend(backend):
            out = core(
                inputs["hidden"],
                self.lengths,
                return_trajectory=True,
                return_state=True,
                **state,
                **self.options,
                **options,
            )
        generator = torch.Generator().manual_seed(9)
        weights = [
            torch.randn(part.shape, generator=generator).to(part)
            for part in (out.trajectory, out.state)
        ]
        # Not a sum: where one is NaN, the others' gradients are to be as they were.
        grads = torch.autograd.grad([out.trajectory, out.state], [*named.values()], weights)
        found = {"trajectory": out.trajectory.detach(), "state": out.state.detach()}
        return {**found, **{f"g_{name}": g for name, g in zip(named, grads, strict=True)}}

    def with_number(self, name: str, place: int, value: float) -> Problem:
        """The same with one number of ``hidden``, ``state`` or a parameter of another value."""
        core = RecurrentCore(self.core.config, dtype=torch.float64)
        core.load_state_dict(self.core.double().state_dict())
        core.to(self.hidden.device).train(self.core.training)
        tensors = {"hidden": self.hidden.clone()}
        if self.state is not None:
            tensors["state"] = self.state.clone()
        # Parameters are planted in float32, too: a conversion may change the bits of a NaN.
        put({**tensors, **dict(core.named_parameters())}[name], place, value)
        return replace(self, core=core, **tensors)


def make_problem(
    config: CoreConfig,
    lengths: list[int] = LENGTHS,
    given: bool = False,
    device: str = "cpu",
    **options: Any,
) -> Problem:
    core, hidden, sizes = exact_problem(config, lengths, device=device)
    if config.mixes_window:
        padding = torch.zeros(len(lengths), config.window - hidden.shape[1], config.d_model)
        hidden = torch.cat([hidden, padding.to(hidden)], dim=1)
    state = None
    if given:
        generator = torch.Generator().manual_seed(4)
        state = torch.randn(hidden.shape, generator=generator).to(hidden)
    if config.is_recurrent:
        options.setdefault("num_steps", 2)
    return Problem(core, hidden, state, sizes, {"seed": 7, **options})


def broken(tensor: Tensor) -> Tensor:
    return ~tensor.isfinite()


def assert_seen(found: dict[str, Tensor], exact: dict[str, Tensor], what: str) -> None:
    """Wherever the equations' results are not finite, these are not."""
    for name, wanted in exact.items():
        missed = broken(wanted) & ~broken(found[name])
        assert not missed.any(), (what, name, missed.nonzero()[:5].tolist())


def rows_of(problem: Problem, sequence: int) -> slice:
    """Where a sequence's tokens stand in a padded tensor."""
    n, longest = int(problem.lengths[sequence]), problem.hidden.shape[1]
    if problem.core.config.mixes_window:
        return slice(0, longest)
    left = problem.core.config.padding != "right"
    return slice(longest - n, longest) if left else slice(0, n)


def assert_others_are_the_same(
    found: dict[str, Tensor], clean: dict[str, Tensor], sequence: int, what: str
) -> None:
    """All results of the sequences but one, to the bit."""
    others = [i for i in range(len(found["state"])) if i != sequence]
    for key in ("trajectory", "state", "g_hidden", "g_state"):
        if key in clean:
            for i in others:
                assert torch.equal(found[key][i], clean[key][i]), (what, key, i)


def assert_stays_in_its_sequence(
    backend: str,
    problem: Problem,
    name: str,
    sequence: int,
    token: int,
    value: float,
    clean: dict[str, Tensor] | None = None,
    **options: Any,
) -> None:
    """One number of a token of ``hidden`` or ``state``.

    Args:
        backend: whose results, in float32.
        problem: without that number.
        name: ``hidden`` or ``state``.
        sequence, token: where it is put.
        value: what is put there.
        clean: the backend's results without it, if they are known.
        options: of the backend's calls.
    """
    row = rows_of(problem, sequence).start + token
    width = problem.core.config.d_model
    place = (sequence * problem.hidden.shape[1] + row) * width + (7 * token + 3) % width
    spoilt = problem.with_number(name, place, value)
    if clean is None:
        clean = problem.results(backend, torch.float32, **options)
    found = spoilt.results(backend, torch.float32, **options)
    exact = spoilt.results("equations", torch.float64)
    what = f"{backend}: {value} in {name} of token {token} of sequence {sequence}"
    assert_others_are_the_same(found, clean, sequence, what)
    own = {
        key: exact[key][sequence : sequence + 1] for key in ("trajectory", "g_hidden", "g_state")
        if key in exact
    }  # fmt: skip
    assert_seen({key: found[key][sequence : sequence + 1] for key in own}, own, what)
    # Products of padded matrices lead NaN to earlier tokens, too, which do not depend on it.
    rows = rows_of(problem, sequence)
    later = slice(rows.start if problem.core.config.mixes_window else row, rows.stop)
    own = {"state": exact["state"][sequence, ..., later, :]}
    assert_seen({"state": found["state"][sequence, ..., later, :]}, own, what)
    assert_seen(found, of_parameters(problem, exact), what)
    assert broken(found["trajectory"][sequence]).any(), what


def of_parameters(problem: Problem, results: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the parameters, but of imaginary parts that a filter has no use for."""
    names = dict(problem.core.named_parameters())
    found = {key: tensor for key, tensor in results.items() if key[2:] in names}
    if "g_filter_weight" in found:
        used = found["g_filter_weight"].clone()
        used[:, 0, :, 1] = 0.0
        if problem.core.config.window % 2 == 0:
            used[:, -1, :, 1] = 0.0
        found["g_filter_weight"] = used
    return found


def assert_a_parameter_is_seen(
    backend: str, problem: Problem, name: str, place: int, value: float, **options: Any
) -> None:
    """One number of a parameter."""
    spoilt = problem.with_number(name, place, value)
    found = spoilt.results(backend, torch.float32, **options)
    exact = spoilt.results("equations", torch.float64)
    what = f"{backend}: {value} in number {place} of {name}"
    # Of the newest tokens alone: products of padded matrices lead NaN to earlier ones, too.
    inputs = {key: exact[key] for key in ("trajectory", "g_hidden", "g_state") if key in exact}
    assert_seen(found, inputs | of_parameters(spoilt, exact), what)


def places_of(parameter: Tensor) -> list[int]:
    """The first, a middle and the last number: of queries, keys and values, say."""
    count = parameter.numel()
    return sorted({0, count // 2, count - 1})
