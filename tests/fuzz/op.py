"""Random layouts, types and shapes of every tensor that the ops take.

    python -m tests.fuzz.op --seconds 60 --seed 0

Each call either gives what it gives for contiguous copies of its tensors, or raises a ``ValueError``,
``TypeError`` or ``RuntimeError`` of one line, as it does for these.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

import lares_kernels as lk
from lares_kernels.binding.cpu_library import load
from lares_kernels.spec.parameters import parameter_shapes
from tests.fuzz.runner import Failure, main
from tests.fuzz.tensors import Outcome, changed, contiguous, outcome, same

_BACKENDS = ("reference", "equations", *(() if isinstance(load(), str) else ("cpu", "cpu", "cpu")))
_MIXERS = ("attention", "attention", "attention", "filter", "bsarec")
Arguments = dict[str, Any]


def _config(rng: Random) -> lk.CoreConfig:
    mixer = rng.choice(_MIXERS)
    windowed = mixer != "attention"
    return lk.CoreConfig(
        d_model=8,
        n_heads=2,
        d_ff=rng.choice((8, 12)),
        n_layers=rng.choice((1, 2)),
        adapter=rng.choice(("add", "gate", "concat", "none")),
        mixer=mixer,
        window=5 if windowed else 0,
        norm="post" if windowed else rng.choice(("post", "pre", "query")),
        padding="right" if windowed else rng.choice(("right", "right", "left", "left-zeros")),
        eps=1e-6,
        dropout=rng.choice((0.0, 0.5)),
        attn_dropout=rng.choice((0.0, 0.25)),
        inner_dropout=rng.choice((0.0, 0.1)),
    )


def _parameters(config: lk.CoreConfig, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: torch.randn(shape, generator=generator) * 0.3 + ("norm_weight" in name)
        for name, shape in parameter_shapes(config).items()
    }


class _Batch:
    """Sizes of a call, and its tensors as they should be."""

    def __init__(self, rng: Random, config: lk.CoreConfig, generator: torch.Generator) -> None:
        self.packed = config.mixer == "attention" and config.padding != "left-zeros"
        self.packed = self.packed and rng.random() < 0.4
        self.size = rng.choice((1, 1, 2, 3))
        self.longest = 5
        self.rollouts = rng.choice((1, 1, 3)) if config.is_recurrent else 1
        self.lengths = torch.randint(1, 6, (self.size,), generator=generator)
        rows = (int(self.lengths.sum()),) if self.packed else (self.size, self.longest)
        self.hidden = torch.randn(*rows, config.d_model, generator=generator)
        group = (self.size,) if self.rollouts == 1 else (self.size, self.rollouts)
        if self.packed:
            shape: tuple[int, ...] = (rows[0] * self.rollouts, config.d_model)
        else:
            shape = (*group, self.longest, config.d_model)
        self.state = None
        if config.is_recurrent and rng.random() < 0.5:
            self.state = torch.randn(shape, generator=generator)
        self.max_steps = rng.choice((1, 2, 4)) if config.is_recurrent else 1
        self.depths = torch.randint(
            1, self.max_steps + 1, (self.size, self.rollouts), generator=generator
        )
        self.depths[0] = self.max_steps
        self.ids = torch.randint(1 << 24, (self.size,), generator=generator)


def _change(arguments: Arguments, names: Sequence[str], rng: Random) -> None:
    """Change some of the tensors named, in place; a list or dictionary counts as all in it."""
    for name in names:
        value = arguments[name]
        if isinstance(value, Tensor) and rng.random() < 0.5:
            arguments[name] = changed(value, rng)
        elif isinstance(value, dict):
            for key in rng.sample(sorted(value), k=rng.choice((0, 0, 1, 2))):
                value[key] = changed(value[key], rng)
        elif isinstance(value, list):
            for place in rng.sample(range(len(value)), k=rng.choice((0, 0, 1, 2))):
                value[place] = changed(value[place], rng)


def _refine(rng: Random, generator: torch.Generator) -> None:
    config = _config(rng)
    batch = _Batch(rng, config, generator)
    steps: Any = batch.max_steps
    if rng.random() < 0.5:
        steps = batch.depths if rng.random() < 0.5 else batch.depths[:, 0].clone()
    arguments: Arguments = {
        "parameters": _parameters(config, generator),
        "hidden": batch.hidden,
        "num_steps": steps,
        "state": batch.state,
        "sequence_ids": batch.ids if rng.random() < 0.5 else None,
        "seed": torch.tensor(rng.choice((5, -3, 1 << 62))) if rng.random() < 0.5 else 7,
    }
    if batch.packed:
        arguments["cu_seqlens"] = torch.nn.functional.pad(batch.lengths.cumsum(0), (1, 0))
    elif rng.random() < 0.7:
        arguments["lengths"] = batch.lengths
    _change(arguments, list(arguments), rng)
    wants_gradients, training = rng.random() < 0.4, rng.random() < 0.5

    def run(given: Arguments) -> Outcome:
        given = dict(given)

        def call() -> Sequence[Tensor | None]:
            with torch.set_grad_enabled(wants_gradients):
                inputs = []
                if wants_gradients:
                    for name in ("hidden", "state", "parameters"):
                        given[name] = _requiring(given[name], inputs)
                out = lk.refine(
                    config,
                    rollouts=batch.rollouts,
                    return_state=True,
                    return_trajectory=True,
                    training=training,
                    **given,
                )
                if not inputs or not out.last.requires_grad:
                    return [part.detach() for part in out if part is not None]
                # Weighed so that every row counts otherwise.
                loss = sum(
                    (part.float() * torch.arange(part.numel()).reshape(part.shape).sin()).sum()
                    for part in (out.state, out.trajectory)
                )
                return [
                    *(part.detach() for part in out if part is not None),
                    *torch.autograd.grad(loss, inputs, allow_unused=True),
                ]

        return outcome(call)

    _compare(arguments, run)


def _requiring(value: Any, inputs: list[Tensor]) -> Any:
    """The same tensors, of which those that can have a gradient are collected in ``inputs``."""
    if isinstance(value, dict):
        return {name: _requiring(each, inputs) for name, each in value.items()}
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
        return value
    leaf = value.detach().requires_grad_()
    inputs.append(leaf)
    return leaf


def _operator(rng: Random, generator: torch.Generator) -> None:
    config = _config(rng)
    batch = _Batch(rng, config, generator)
    backend = rng.choice(_BACKENDS)
    flags = [rng.random() < 0.5 for _ in range(5)]
    arguments: Arguments = {
        "hidden": batch.hidden,
        "state": batch.state,
        "parameters": list(_parameters(config, generator).values()),
        "lengths": batch.lengths,
        "num_steps": batch.depths.flatten() if rng.random() < 0.5 else None,
        "sequence_ids": batch.ids if rng.random() < 0.5 else None,
        "seed": torch.tensor(11),
        "config": config.key,
        "backend": backend,
        "precision": "fp32",
        "rollouts": batch.rollouts,
        "max_steps": batch.max_steps,
        "steps_done": 2 if batch.state is not None and rng.random() < 0.3 else 0,
        "dropout": flags[0],
        "zero_state": flags[1],
        "wants_state": flags[2],
        "differentiates": flags[3],
        "keeps_padding": flags[4],
        "max_length": 0,
    }
    names = ["hidden", "state", "parameters", "lengths", "num_steps", "sequence_ids", "seed"]
    operator: Any = torch.ops.lares_kernels.refine
    if rng.random() < 0.6:
        arguments["differentiates"] = True
        with torch.no_grad():
            trajectory, final, kept = operator(*arguments.values())
        arguments["kept"] = kept
        arguments["g_trajectory"] = torch.randn(trajectory.shape, generator=generator)
        arguments["g_state"] = torch.randn(final.shape, generator=generator)
        if rng.random() < 0.2:
            arguments[rng.choice(("g_trajectory", "g_state"))] = None
        names += ["kept", "g_trajectory", "g_state"]
        operator = torch.ops.lares_kernels.refine_backward
    _change(arguments, names, rng)
    for name, values in {
        "config": ("", "{}", '{"d_model": 0}', lk.CoreConfig(d_model=16).key),
        "backend": ("nothing", "triton", "cuda", "equations"),
        "precision": ("fp64", "bf16", "fp8"),
        "rollouts": (0, -1, 2, 300),
        "max_steps": (0, -1, 3, 1 << 16),
        "steps_done": (-1, 1, 1 << 16),
        "differentiates": (False,),
        "wants_state": (True, False),
    }.items():
        if rng.random() < 0.05:
            arguments[name] = rng.choice(values)
    if rng.random() < 0.05:
        arguments["parameters"] = arguments["parameters"][:-1]

    def run(given: Arguments) -> Outcome:
        def call() -> Sequence[Tensor]:
            found = operator(*given.values())
            # Of what is kept, rows of padding may hold anything.
            return found if isinstance(found, list) else [*found[:2], torch.zeros_like(found[2])]

        return outcome(call)

    _compare(arguments, run)


def _catalogue(rng: Random, generator: torch.Generator) -> None:
    n_rows, n_items, width = rng.choice((0, 1, 2, 5)), rng.choice((1, 30)), 6
    chosen = torch.randint(n_items, (n_rows,), generator=generator)
    excluded = torch.randint(-1, n_items, (n_rows, rng.choice((0, 3))), generator=generator)
    excluded = excluded.masked_fill(excluded == chosen[:, None], -1)
    options: Arguments = {
        "scores": rng.choice(("dot", "cosine")),
        "temperature": 0.5,
    }
    each = rng.choice((1, 3))
    queries = torch.randn(n_rows, each, width, generator=generator)
    items = torch.randn(n_items, width, generator=generator)
    if rng.random() < 0.2:
        items = items.bfloat16()
    arguments: Arguments = {"queries": queries, "items": items, "chosen": chosen}
    kind = rng.choice(("log_probability", "cross_entropy", "top_k", "ranks"))
    left_out = excluded if rng.random() < 0.6 else None
    k = rng.choice((1, n_items, 0, n_items + 1)) if rng.random() < 0.3 else 1
    if kind != "log_probability":
        arguments["queries"] = queries[:, 0].clone()
    if rng.random() < 0.5:  # the public functions
        arguments["excluded"] = left_out
        if rng.random() < 0.2:
            options["temperature"] = torch.tensor(0.5)
        arguments |= options
        _change(arguments, ["queries", "items", "chosen", "excluded", "temperature"], rng)
        function: Any = getattr(lk, f"catalogue_{kind}")

        def public(given: Arguments) -> Sequence[Tensor]:
            given = dict(given)
            last = k if kind == "top_k" else given["chosen"]
            del given["chosen"]
            found = function(given.pop("queries"), given.pop("items"), last, **given)
            return [found] if isinstance(found, Tensor) else found

        _compare(arguments, lambda given: outcome(lambda: public(given)))
        return

    # The operators, which take every query as a row of a matrix.
    if kind == "log_probability":
        arguments["queries"] = queries.flatten(0, 1)
    backend = rng.choice([name for name in _BACKENDS if name != "equations"])
    arguments |= {"excluded": left_out, **options, "backend": backend, "precision": "fp32"}
    names = ["queries", "items", "chosen", "excluded"]
    operators = torch.ops.lares_kernels
    operator: Any = operators.catalogue_log_probability
    if kind in ("top_k", "ranks"):
        operator = getattr(operators, f"catalogue_{kind}")
        if kind == "top_k":
            del arguments["chosen"]
            names.remove("chosen")
            arguments["k"] = k
    elif rng.random() < 0.5:
        _, normaliser, _ = operator(*arguments.values(), False)
        arguments["normaliser"] = normaliser
        arguments["g_log_probability"] = torch.randn(normaliser.shape, generator=generator)
        arguments |= {"wants_queries": rng.random() < 0.7, "wants_items": rng.random() < 0.7}
        names += ["normaliser", "g_log_probability"]
        operator = operators.catalogue_gradients
    else:
        arguments["wants_entropy"] = rng.random() < 0.5
    _change(arguments, names, rng)
    for name, values in {
        "scores": ("cos",),
        "temperature": (0.0, float("nan")),
        "backend": ("nothing", "triton"),
        "precision": ("fp64", "fp8", "bf16"),
    }.items():
        if rng.random() < 0.05:
            arguments[name] = rng.choice(values)

    def run(given: Arguments) -> Outcome:
        def call() -> Sequence[Tensor]:
            found = operator(*given.values())
            return [found] if isinstance(found, Tensor) else found

        return outcome(call)

    _compare(arguments, run)


def _compare(arguments: Arguments, run: Callable[[Arguments], Outcome]) -> None:
    """Run the call as it is and with contiguous copies; raise :class:`Failure` if these differ."""
    mine = run(arguments)
    other = run({name: contiguous(value) for name, value in arguments.items()})
    if not same(mine, other):
        which = [""]
        if not isinstance(mine, str) and not isinstance(other, str):
            pairs = zip(mine, other, strict=False)
            which = [str(i) for i, (a, b) in enumerate(pairs) if not same([a], [b])]
        raise Failure(
            f"results {','.join(which)}: {_said(mine)}; contiguous: {_said(other)}; of "
            f"{_described(arguments)}"
        )


def _said(found: Outcome) -> str:
    if isinstance(found, str):
        return found
    return ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in found)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        layout = value.stride() if value.layout is torch.strided else value.layout
        return f"{tuple(value.shape)} {layout} {value.dtype} {value.device}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_described(each)}" for name, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_described, value))}]"
    return repr(value)


def case(seed: int) -> None:
    """Run the case of ``seed``; raises :class:`Failure` if it goes wrong."""
    rng = Random(seed)
    generator = torch.Generator().manual_seed(seed)
    kind = rng.choice((_refine, _refine, _operator, _operator, _catalogue))
    with warnings.catch_warnings(), lk.use_backend(rng.choice(_BACKENDS)):
        warnings.simplefilter("ignore")  # of complex numbers that lose a part
        kind(rng, generator)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main("tests.fuzz.op", case) > 0)
