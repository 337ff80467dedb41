"""Makes the cases of csrc/tests/harness.cpp: ``python -m tests.kernels.cpu.harness_cases``.

Inputs are numbers that float32 holds exactly, the same on every machine; results are the equations' in
float64. How a call is put into the C struct is asked of the backends that do it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lares_kernels import CoreConfig, refine, use_backend
from lares_kernels.binding import cpu_library as lib
from lares_kernels.cpu import backend as cpu
from lares_kernels.cpu import catalogue as catalogue_cpu
from lares_kernels.operators.refine import make_call
from lares_kernels.spec.call import Given, RefineCall, depths, has_dropout
from lares_kernels.spec.catalogue_call import CatalogueCall, Operands
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.spec.parameters import parameter_shapes
from tests.kernels.catalogues import CatalogueProblem, ranks_by_hand, top_k_by_hand
from tests.kernels.cpu import harness_file
from tests.kernels.cpu.harness_file import Entry, given, result, room, word_of, write
from tests.kernels.problems import BACKWARD, FORWARD, YARDSTICKS

STORED = Path(__file__).parents[2] / "golden" / "harness.cases"


@dataclass(frozen=True)
class Recurrence:
    """A call of the recurrence.

    Attributes:
        name: of the case.
        config: of the core.
        lengths: of the sequences.
        packed: whether they lie one after the other.
        state: the first one: ``given``, ``normal`` (drawn) or ``zero``.
        wants_state: whether the final state is read.
        differentiates: whether backward is run, too.
        options: more arguments of :func:`lares_kernels.refine`.
    """

    name: str
    config: CoreConfig
    lengths: list[int]
    packed: bool = False
    state: str = "normal"
    wants_state: bool = True
    differentiates: bool = True
    options: dict[str, Any] = field(default_factory=dict)


RECURRENCES = [
    Recurrence(
        "post-add",
        CoreConfig(24, 3, 20, 1, dropout=0.5, attn_dropout=0.25, inner_dropout=0.1),
        [1, 5, 19, 9],
        options={
            "num_steps": torch.tensor([3, 1, 2, 3]),
            "sequence_ids": torch.tensor([7, (1 << 24) - 1, 0, 12345]),
            "seed": (1 << 64) - 5,
        },
    ),
    Recurrence(
        "pre-gate-packed",
        CoreConfig(
            16, 1, 24, 2, "gate", activation="gelu_tanh", norm="pre", dropout=0.25, attn_dropout=0.1
        ),
        [1, 66, 3],
        packed=True,
        state="given",
        options={
            "num_steps": torch.tensor([[2, 1], [3, 2], [1, 3]]),
            "rollouts": 2,
            "steps_done": 4,
            "seed": 3,
        },
    ),
    Recurrence(
        "query-concat-left",
        CoreConfig(
            16,
            2,
            24,
            1,
            "concat",
            norm="query",
            dropout=0.1,
            attn_dropout=0.5,
            inner_dropout=0.25,
            dropout_of="feed-forward",
            padding="left-zeros",
        ),
        [4, 11, 1],
        state="given",
        wants_state=False,
        options={"num_steps": 2, "seed": 11},
    ),
    # Once through the layers, and rows enough: where rounding takes one number across the step in
    # relu's slope is of no weight.
    Recurrence(
        "post-none",
        CoreConfig(16, 4, 24, 2, "none", activation="relu", dropout=0.1, attn_dropout=0.5),
        [1, 17, 2, 67],
        packed=True,
        options={"seed": 1 << 40},
    ),
    Recurrence(
        "inference",
        CoreConfig(40, 5, 70, 1),
        [5, 66],
        state="zero",
        wants_state=False,
        differentiates=False,
        options={"num_steps": 4},
    ),
    # Tiles and work enough for several threads.
    Recurrence(
        "threads",
        CoreConfig(
            16,
            2,
            144,
            1,
            activation="silu",
            dropout=0.1,
            attn_dropout=0.5,
            inner_dropout=0.1,
        ),
        [114, 1, 50, 50],
        packed=True,
        wants_state=False,
        options={"num_steps": 9, "seed": 2},
    ),
    # Whose decisions of attention dropout do not depend on neighbours: of a sequence behind one that
    # ends at a block of 64 key positions, and of one that goes past it in a vector it shares.
    *(
        Recurrence(
            f"neighbours-{lengths[1]}",
            CoreConfig(16, 2, 24, 1, dropout=0.25, attn_dropout=0.5),
            lengths,
            packed=True,
            state="given",
            options={"num_steps": 2, "seed": 13},
        )
        for lengths in ([5, 64, 4], [5, 60, 9])
    ),
    Recurrence(
        "filter",
        CoreConfig(16, 2, 24, 2, "gate", "filter", window=20, dropout=0.5, inner_dropout=0.25),
        [1, 20, 7],
        options={"num_steps": 2, "seed": 5},
    ),
    Recurrence(
        "bsarec",
        CoreConfig(
            16, 2, 24, 1, "concat", "bsarec", window=21, cutoff=5, dropout=0.25, attn_dropout=0.5
        ),
        [21, 1, 8],
        state="given",
        options={"num_steps": torch.tensor([1, 3, 2]), "seed": 6},
    ),
]


def numbers(name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
    """Numbers of that mean and standard deviation, as float64, exact in float32.

    Python promises that ``random()`` draws the same in every version; torch's normal numbers depend on
    the processor.
    """
    draws = random.Random(name)
    count = torch.Size(shape).numel()
    uniform = torch.tensor([draws.random() for _ in range(count)], dtype=torch.float64)
    return (mean + scale * 12**0.5 * (uniform - 0.5)).float().double().reshape(shape)


def whole(name: str, low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers of ``low..high - 1``, as float64."""
    draws = random.Random(name)
    count = torch.Size(shape).numel()
    drawn = [low + int(draws.random() * (high - low)) for _ in range(count)]
    return torch.tensor(drawn, dtype=torch.float64).reshape(shape)


def parameters_of(case: Recurrence) -> dict[str, Tensor]:
    return {
        name: numbers(
            f"{case.name} {name}", *shape, scale=0.2, mean=float(name.endswith("norm_weight"))
        )
        for name, shape in parameter_shapes(case.config).items()
    }


def hidden_of(case: Recurrence) -> Tensor:
    rows = (sum(case.lengths),) if case.packed else (len(case.lengths), max(case.lengths))
    if case.config.mixes_window:
        rows = (len(case.lengths), case.config.window)
    return numbers(f"{case.name} hidden", *rows, case.config.d_model)


@dataclass
class Run:
    """Tensors of a call by their names in the C struct, parameters' gradients by the parameters'."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def run(case: Recurrence, call: RefineCall, dtype: torch.dtype, precision: str) -> Run:
    """The equations in plain PyTorch."""
    hidden, parameters = hidden_of(case), parameters_of(case)
    inputs = {"hidden": hidden, **parameters}
    if case.state == "given":
        inputs["state"] = numbers(f"{case.name} state", *call.state_shape)
    leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}
    where: dict[str, Any] = {"lengths": case.lengths}
    if case.packed:
        where = {"cu_seqlens": torch.tensor([0, *case.lengths]).cumsum(0).int()}
    with use_backend("equations"):
        out = refine(
            case.config,
            {name: leaves[name] for name in parameters},
            leaves["hidden"],
            **where,
            state=leaves.get("state", case.state),
            return_trajectory=True,
            return_state=True,
            training=True,
            precision=precision,
            **case.options,
        )
    # One rollout after the other, as the library has them.
    outputs = {
        "trajectory": out.trajectory.reshape(-1, call.options.max_steps, case.config.d_model)
    }
    if case.wants_state:
        outputs["final_state"] = out.state
    detached = {name: tensor.detach() for name, tensor in outputs.items()}
    if not case.differentiates:
        return Run(inputs, detached, {})
    weights = {
        f"g_{name.removeprefix('final_')}": numbers(f"{case.name} g_{name}", *tensor.shape)
        for name, tensor in outputs.items()
    }
    loss = sum(
        (tensor * weight.to(dtype)).sum()
        for tensor, weight in zip(outputs.values(), weights.values(), strict=True)
    )
    found = torch.autograd.grad(loss, list(leaves.values()))
    return Run({**inputs, **weights}, detached, dict(zip(leaves, found, strict=True)))


def call_of(case: Recurrence) -> RefineCall:
    """The call as backends get it."""
    options = case.options
    rollouts = options.get("rollouts", 1)
    steps, most = depths(case.config, options.get("num_steps", 1), len(case.lengths), rollouts)
    told = CallOptions(
        case.config.key,
        "cpu",
        "fp32",
        rollouts,
        most,
        steps_done=options.get("steps_done", 0),
        dropout=has_dropout(case.config),
        zero_state=case.state == "zero",
        wants_state=case.wants_state,
        differentiates=case.differentiates,
    )
    lengths, ids = torch.tensor(case.lengths), options.get("sequence_ids")
    tensors = CallTensors(lengths, steps, ids, options.get("seed", 0))
    return make_call(hidden_of(case).float(), tensors, told)


def entries_of_recurrence(case: Recurrence) -> Iterator[Entry]:
    """The case as lines of the file."""
    call = call_of(case)
    exact = run(case, call, torch.float64, "fp64")
    rounded = run(case, call, torch.float32, "bf16")
    single = {name: tensor.float() for name, tensor in exact.inputs.items()}
    names = [*parameter_shapes(case.config)]
    parameters = [single[name] for name in names]
    struct = cpu._Inputs(call, Given(single["hidden"], single.get("state"), parameters)).c
    # Of every parameter the place among the struct's.
    places = {
        name: i for i, name in enumerate(cpu.template_of(call).reorder((*names, None))) if name
    }

    functions = ["lares_refine_forward", *["lares_refine_backward"] * case.differentiates]
    yield harness_file.case(case.name, *functions)
    yield harness_file.call(struct)
    inputs = {
        "lengths": call.lengths,
        "steps": call.num_steps,
        "sequence_ids": call.sequence_ids,
        **exact.inputs,
    }
    for name, tensor in inputs.items():
        field_and_index = ("parameters", places[name]) if name in places else (name,)
        if tensor is not None:
            yield given(name, word_of(struct, *field_and_index), tensor)
    if call.kept_size:
        rows = call.options.max_steps * call.kept_rows
        yield room("kept", word_of(struct, "kept"), rows * case.config.d_model)
        yield room("kept_rstd", word_of(struct, "kept_rstd"), rows)

    words = {name: word_of(struct, name) for name in exact.outputs}
    yield from results(words, exact.outputs, rounded.outputs, FORWARD, 0.0)
    words = {name: word_of(struct, "g_parameters", places[name]) for name in names}
    words |= {"hidden": word_of(struct, "g_hidden"), "state": word_of(struct, "g_first_state")}
    # A gradient that is zero but for rounding (a key's bias) is measured on the largest one's scale.
    yield from results(words, exact.gradients, rounded.gradients, BACKWARD, 1e-3, "g_")


def results(
    words: dict[str, int],
    exact: dict[str, Tensor],
    rounded: dict[str, Tensor],
    tolerance: float,
    floor: float,
    prefix: str = "",
) -> Iterator[Entry]:
    """Results with the errors allowed to them.

    Args:
        words: of the C struct.
        exact: in float64.
        rounded: from factors rounded to bfloat16; what is next to nothing beside the others is
            measured on their scale, as tests/kernels/cpu/test_cpu_bf16.py does it.
        tolerance: relative, in float32.
        floor: for tensors smaller than this share of the largest one, the tolerance is of that share.
        prefix: of the names.
    """
    norms = {name: float(tensor.norm()) for name, tensor in exact.items()}
    largest = max(norms.values(), default=0.0)

    def scale(name: str, floor: float) -> float:
        return max(norms[name], floor * largest)

    yardstick = max(
        (float((rounded[name] - exact[name]).norm()) / scale(name, 1e-2) for name in exact),
        default=0.0,
    )
    for name, tensor in exact.items():
        single = tolerance * scale(name, floor)
        half = YARDSTICKS * yardstick * scale(name, 1e-2)
        yield result(prefix + name, words[name], tensor, single, half)


def entries_of_catalogue(
    problem: CatalogueProblem, struct: lib.LaresCatalogue, excluded: Tensor | None
) -> Iterator[Entry]:
    """What the cases of a catalogue have in common: struct and inputs."""
    yield harness_file.call(struct)
    inputs = {
        "queries": problem.queries,
        "items": problem.items,
        "chosen": problem.chosen,
        "excluded": excluded,
    }
    for name, tensor in inputs.items():
        if tensor is not None:
            yield given(name, word_of(struct, name), tensor)


def struct_of(problem: CatalogueProblem) -> tuple[lib.LaresCatalogue, Tensor | None]:
    """The C struct, and the excluded items as it takes them."""
    options = problem.options
    call = CatalogueCall(
        options.get("scores", "dot"), options.get("temperature", 1.0), torch.float32
    )
    queries = problem.queries.reshape(-1, problem.queries.shape[-1]).float()
    operands = Operands(queries, problem.items.float(), problem.chosen, problem.excluded)
    inputs = catalogue_cpu._Inputs(call, operands)
    return inputs.c, inputs.alive[-1] if problem.excluded is not None else None


def entries_of_loss(name: str, problem: CatalogueProblem) -> Iterator[Entry]:
    """Log-probability, entropy and gradients."""
    exact = problem.results("equations")
    rounded = problem.to(torch.float32).results("reference", precision="bf16")
    allowed = problem.tolerances()
    struct, excluded = struct_of(problem)
    yield harness_file.case(name, "lares_catalogue_log_probability", "lares_catalogue_gradients")
    yield from entries_of_catalogue(problem, struct, excluded)
    weights = problem.weights(problem.queries.shape[:2])
    yield given("g_log_probability", word_of(struct, "g_log_probability"), weights)
    yield room("normaliser", word_of(struct, "normaliser"), weights.numel())
    for what, tensor in exact.items():
        half = YARDSTICKS * float((rounded[what] - tensor).norm())
        yield result(what, word_of(struct, what), tensor, allowed[what], max(half, allowed[what]))


def entries_of_order(name: str, problem: CatalogueProblem, k: int) -> Iterator[Entry]:
    """The best items and ranks; of whole numbers, whose scores are exact in either precision."""
    struct, excluded = struct_of(problem)
    struct.k = k
    yield harness_file.case(name, "lares_catalogue_top_k", "lares_catalogue_ranks")
    yield from entries_of_catalogue(problem, struct, excluded)
    scores, ids = top_k_by_hand(problem, k)
    yield result("top_scores", word_of(struct, "top_scores"), scores, 0.0, 0.0)
    for what, found in (("top_ids", ids), ("ranks", ranks_by_hand(problem))):
        yield result(what, word_of(struct, what), found, 0.0, 0.0)


class Problem(CatalogueProblem):
    """Whose gradients are of a function that float32 holds exactly."""

    @staticmethod
    def weights(shape: tuple[int, ...]) -> Tensor:
        return numbers("weights", *shape)


def catalogue_problem(
    name: str, rows: int, steps: int, items: int, width: int, n_excluded: int, **options: Any
) -> Problem:
    chosen = whole(f"{name} chosen", 0, items, rows).long()
    excluded = None
    if n_excluded:
        excluded = whole(f"{name} excluded", -1, items, rows, n_excluded).long()
        excluded = excluded.masked_fill(excluded == chosen[:, None], -1)
    queries = numbers(f"{name} queries", rows, steps, width, scale=0.5)
    wide = numbers(f"{name} items", items, width)
    return Problem(queries, wide, chosen, excluded, options)


def entries_of_catalogues() -> Iterator[Entry]:
    # The first and the last have work enough for a second thread.
    problem = catalogue_problem("dot", 320, 2, 660, 8, 5, temperature=0.75)
    yield from entries_of_loss("catalogue-dot", problem)
    problem = catalogue_problem("cosine", 9, 1, 90, 24, 0, scores="cosine", temperature=0.125)
    yield from entries_of_loss("catalogue-cosine", problem)
    problem = catalogue_problem("order", 900, 1, 1400, 8, 2)
    exact = Problem(
        whole("order queries", -2, 3, *problem.queries.shape),
        whole("order items", -2, 3, *problem.items.shape),
        problem.chosen,
        problem.excluded,
    )
    yield from entries_of_order("catalogue-order", exact, 2)


def entries() -> list[Entry]:
    """All cases."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of sums this small, others would only wait for each other
    try:
        found = [line for case in RECURRENCES for line in entries_of_recurrence(case)]
        return [*found, *entries_of_catalogues()]
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    write(STORED, entries())
