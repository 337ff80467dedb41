"""The CPU kernel against the equations in float64, for every instruction set of this processor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from lares_kernels import BackendError, CoreConfig, RecurrentCore, explain, use_backend
from lares_kernels.binding import cpu_library as lib
from lares_kernels.spec.choices import (
    Activation,
    Adapter,
    Code,
    Mixer,
    Norm,
    Padding,
    Precision,
    StateMode,
)
from tests.kernels.problems import (
    BACKWARD,
    FORWARD,
    VARIANTS,
    assert_equal_to_equations,
    make_core,
    name,
    outputs_and_gradients,
    relative,
)
from tests.kernels.random_calls import calls
from tests.kernels.tools import NEEDS_CPU_KERNEL, cpu_sets

pytestmark = NEEDS_CPU_KERNEL

PUBLISHED = CoreConfig(d_model=64, n_heads=2, d_ff=256, n_layers=2, dropout=0.5, attn_dropout=0.5)
LENGTHS = [1, 5, 3, 9, 20, 7, 16, 17, 2, 2, 40, 66]


@pytest.mark.usefixtures("instruction_set", "poisoned_memory")
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_published_core(depth: int) -> None:
    assert_equal_to_equations("cpu", PUBLISHED, LENGTHS, num_steps=depth)


@pytest.mark.usefixtures("instruction_set", "poisoned_memory")
@pytest.mark.parametrize("config", VARIANTS, ids=name)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_every_variant(config: CoreConfig, dropout: float) -> None:
    config = replace(config, dropout=dropout, attn_dropout=dropout / 2, inner_dropout=dropout / 4)
    assert_equal_to_equations("cpu", config, LENGTHS, num_steps=3 if config.is_recurrent else 1)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(
    ("width", "heads", "inner"), [(8, 1, 1), (24, 3, 20), (40, 5, 70), (128, 4, 512), (200, 5, 300)]
)
def test_odd_shapes(width: int, heads: int, inner: int) -> None:
    config = CoreConfig(width, heads, inner, 2, dropout=0.5, attn_dropout=0.1)
    assert_equal_to_equations("cpu", config, [1, 130, 9, 33], num_steps=2)


def test_the_widest() -> None:
    assert_equal_to_equations("cpu", CoreConfig(512, 8, 64, 1), [3, 18], num_steps=2)
    reason = r"d_model is 520; it serves up to 512"
    with use_backend("cpu"), pytest.raises(BackendError, match=reason):
        RecurrentCore(CoreConfig(520, 8, 64, 1))(torch.zeros(1, 2, 520))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("rollouts", [1, 3])
@pytest.mark.parametrize("adapter", ["add", "concat"])
def test_depths_and_rollouts(rollouts: int, adapter: str) -> None:
    depths = torch.tensor([[2, 1, 3], [1, 1, 4], [4, 4, 4], [3, 2, 1]])[:, :rollouts]
    config = replace(PUBLISHED, d_model=16, d_ff=24, adapter=adapter)
    lengths = [4, 9, 1, 30]
    assert_equal_to_equations("cpu", config, lengths, num_steps=depths, rollouts=rollouts)


@pytest.mark.parametrize("norm", ["post", "pre", "query"])
@pytest.mark.parametrize("padding", ["right", "left-zeros"])
def test_only_the_last_rows_are_computed_at_the_end_where_only_they_are_read(
    norm: str, padding: str
) -> None:
    """Without ``return_state`` the last layer of a sequence's last step skips the other rows."""
    config = replace(PUBLISHED, norm=norm, padding=padding, inner_dropout=0.25)
    core = make_core(config, scale=0.1).float()
    lengths = torch.tensor([4, 9, 1, 30])
    depths = torch.tensor([3, 1, 2, 3])
    grads, lasts = [], []
    for return_state in (False, True):
        hidden = torch.ones(4, 30, 64).mul_(torch.arange(30)[:, None] / 30).requires_grad_()
        with use_backend("cpu"):
            out = core(
                hidden,
                lengths,
                num_steps=depths,
                return_state=return_state,
                return_trajectory=True,
            )
        loss = out.last.square().sum() + out.trajectory[:, 0].sum()
        grads.append(torch.autograd.grad(loss, [hidden, *core.parameters()]))
        lasts.append(out.trajectory)
    assert torch.equal(*lasts)
    for mine, wanted in zip(*grads, strict=True):
        assert (mine - wanted).norm() <= 2e-5 * wanted.norm() + 1e-6


def test_gradient_of_the_given_state() -> None:
    core = make_core(PUBLISHED, scale=0.1).float()
    lengths = torch.tensor([4, 9])
    hidden = torch.randn(2, 9, 64)
    state = torch.randn(2, 9, 64, requires_grad=True)
    grads = []
    for backend in ("reference", "cpu"):
        with use_backend(backend):
            out = core(hidden, lengths, num_steps=3, state=state)
        (g,) = torch.autograd.grad(out.last.square().sum(), [state])
        grads.append(g)
    assert relative(grads[1], grads[0]) < BACKWARD
    assert grads[1][0, 4:].abs().max() == 0


def bits(core: RecurrentCore, lengths: Tensor, threads: int) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        hidden = torch.linspace(-1, 1, len(lengths) * 20 * 64).reshape(len(lengths), 20, 64)
        with use_backend("cpu"):
            outputs, grads = outputs_and_gradients(core, hidden, lengths, num_steps=4, seed=2)
    finally:
        torch.set_num_threads(before)
    return [*outputs, *grads]


def test_any_number_of_threads_gives_the_same_bits() -> None:
    core = make_core(PUBLISHED, scale=0.1).float()
    lengths = torch.arange(200) % 20 + 1
    first = bits(core, lengths, 1)
    for threads in (1, 2, 3):
        for mine, wanted in zip(bits(core, lengths, threads), first, strict=True):
            assert torch.equal(mine, wanted)


def test_defaults_of_new_tensors_change_nothing(other_defaults: Any) -> None:
    core = make_core(PUBLISHED, scale=0.1).float()
    hidden, lengths = torch.randn(2, 3, 64, requires_grad=True), torch.tensor([3, 2])

    def run() -> list[Tensor]:
        with use_backend("cpu"):
            out = core(hidden, lengths, num_steps=2, return_state=True)
            grads = torch.autograd.grad(out.last.sum(), [hidden, *core.parameters()])
            with torch.no_grad():
                alone = core(hidden, lengths, num_steps=2).last
        return [out.last.detach(), out.state.detach(), alone, *grads]

    wanted = run()
    with other_defaults():
        found = run()
    for mine, exact in zip(found, wanted, strict=True):
        assert torch.equal(mine, exact)


def test_packed_padded_and_alone_give_the_same_bits() -> None:
    core = make_core(PUBLISHED, scale=0.1).float()
    lengths = torch.tensor(LENGTHS)
    hidden = torch.randn(len(LENGTHS), 66, 64)
    with use_backend("cpu"), torch.no_grad():
        padded = core(hidden, lengths, num_steps=3, return_state=True)
        rows = torch.cat([row[:n] for row, n in zip(hidden, LENGTHS, strict=True)])
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        packed = core(rows, cu_seqlens=offsets, num_steps=3, return_state=True)
        assert torch.equal(packed.last, padded.last)
        for i, n in enumerate(LENGTHS):
            alone = core(
                hidden[i : i + 1, :n],
                num_steps=3,
                sequence_ids=torch.tensor([i]),
                return_state=True,
            )
            assert torch.equal(alone.last[0], padded.last[i])
            assert torch.equal(alone.state[0], padded.state[i, :n])


def test_packed_weights_follow_the_parameters() -> None:
    """Weights of short calls are kept packed; any change of the parameters must be seen."""
    core = make_core(PUBLISHED, scale=0.1).float().eval()
    hidden = torch.randn(1, 8, 64)

    def check() -> Tensor:
        with torch.no_grad():
            with use_backend("reference"):
                wanted = core(hidden, num_steps=2).last
            with use_backend("cpu"):
                found = core(hidden, num_steps=2).last
        assert relative(found, wanted) < FORWARD
        return found

    before = check()
    core.up_weight.data.neg_()  # .data: no version counter moves
    core.down_weight.data.neg_()
    check()
    core.up_weight.data.neg_()
    core.down_weight.data.neg_()
    assert torch.equal(check(), before)
    core.qkv_weight.data[1, 3, 5] += 1.0
    assert not torch.equal(check(), before)
    core.qkv_weight.data[1, 3, 5] -= 1.0
    core.out_weight.data.copy_(core.out_weight.data.flip(0))  # the layers change places
    assert not torch.equal(check(), before)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(calls([8, 16, 24, 32], 140, 90, 6))
def test_random_calls(call) -> None:
    config, lengths, depths, seed = call
    assert_equal_to_equations("cpu", config, lengths, num_steps=torch.tensor(depths), seed=seed)


def test_calls_from_several_threads() -> None:
    core = make_core(PUBLISHED, scale=0.1).float()
    lengths = torch.arange(60) % 20 + 1
    expected = bits(core, lengths, 2)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: bits(core, lengths, 2), range(8)):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


FORK = """
import os, torch
from lares_kernels import CoreConfig, RecurrentCore, use_backend
torch.set_num_threads(2)
core, hidden = RecurrentCore(CoreConfig()).eval(), torch.ones(60, 20, 64)
with torch.no_grad(), use_backend("cpu"):
    expected = [core(hidden, precision=precision).last for precision in ("fp32", "bf16")]
    child = os.fork()
    if child == 0:
        found = [core(hidden, precision=precision).last for precision in ("fp32", "bf16")]
        os._exit(0 if all(map(torch.equal, found, expected)) else 1)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
# In a child all run on the pool's threads: several callers at once, a child of the child between them.
SHARED = """
import os, threading, torch
from lares_kernels import CoreConfig, RecurrentCore, use_backend
torch.set_num_threads(3)
core, hidden = RecurrentCore(CoreConfig()).eval(), torch.ones(60, 20, 64)
def run():
    with torch.no_grad(), use_backend("cpu"):
        return core(hidden).last
def child_of(body):
    child = os.fork()
    if child == 0:
        os._exit(0 if body() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
expected = run()
def right():
    return torch.equal(run(), expected)
assert right()  # so that no thread is at what torch makes at the first call as another forks
def name(task):
    try:
        return open(f"/proc/self/task/{task}/comm").read()
    except FileNotFoundError:
        return "ended"
def at_once():
    torch.set_num_threads(3)
    found = []
    def calls():
        found.extend(right() for _ in range(5))
    callers = [threading.Thread(target=calls) for _ in range(4)]
    for caller in callers:
        caller.start()
    grandchild = child_of(right)
    for caller in callers:
        caller.join()
    names = [name(task) for task in os.listdir("/proc/self/task")]
    return grandchild and found == 20 * [True] and names.count("lares\\n") == 2
print("child:", child_of(at_once))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_can_use_it() -> None:
    # The parent has run on OpenMP's threads, which the child does not have. Its tensors are too small
    # for parallel loops of torch's own, which would wait for those threads for ever.
    command = [sys.executable, "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "child: 0" in done.stdout, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts its threads in /proc")
def test_callers_at_once_share_the_threads_of_the_pool() -> None:
    command = [sys.executable, "-c", SHARED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "child: True" in done.stdout, done.stdout + done.stderr


def test_says_why_it_cannot_serve() -> None:
    hidden = torch.zeros(1, 2, 64, dtype=torch.float64)
    with use_backend("cpu"), pytest.raises(BackendError, match=r"products in torch\.float64"):
        RecurrentCore(PUBLISHED, dtype=torch.float64)(hidden)
    chosen = explain(PUBLISHED, [2], 4, dtype=torch.float64)
    assert chosen.backend == "reference"
    assert "torch.float64" in chosen.passed_over["cpu"]
    assert explain(PUBLISHED, [2], 4).backend == "cpu"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("abi", 99, Code.BAD_ARGUMENT),
        ("d_model", 0, Code.BAD_ARGUMENT),
        ("d_model", 1 << 40, Code.BAD_ARGUMENT),
        ("n_heads", 3, Code.BAD_ARGUMENT),
        ("adapter", len(Adapter), Code.BAD_ARGUMENT),
        ("adapter", -1, Code.BAD_ARGUMENT),
        ("activation", len(Activation), Code.BAD_ARGUMENT),
        ("norm", len(Norm), Code.BAD_ARGUMENT),
        ("mixer", len(Mixer), Code.BAD_ARGUMENT),
        ("padding", len(Padding), Code.BAD_ARGUMENT),
        ("precision", Precision.FP16, Code.BAD_ARGUMENT),
        ("state_mode", len(StateMode), Code.BAD_ARGUMENT),
        ("eps", float("nan"), Code.BAD_ARGUMENT),
        ("hidden", None, Code.BAD_ARGUMENT),
        ("n_sequences", 0, Code.BAD_ARGUMENT),
        ("n_rows", 8, Code.BAD_LENGTH),
        ("max_steps", 0, Code.BAD_STEPS),
        ("max_steps", 1 << 16, Code.BAD_STEPS),
    ],
)
def test_the_library_refuses_what_it_cannot_compute(field: str, value: Any, code: int) -> None:
    hidden, lengths = torch.zeros(7, 8), torch.tensor([3, 4])
    call = lib.LaresCall(abi=lib.ABI, d_model=8, n_heads=1, d_ff=8, n_layers=1, eps=1e-12)
    call.n_sequences, call.rollouts, call.n_rows, call.max_steps = 2, 1, 7, 1
    call.state_mode, call.threads = StateMode.ZERO, 1
    call.hidden, call.lengths = hidden.data_ptr(), lengths.data_ptr()
    setattr(call, field, value)
    assert lib.loaded().lares_refine_forward(call) == code


NO_MEMORY_LEFT = """
import resource, torch
from lares_kernels import CoreConfig, RecurrentCore, use_backend
core, hidden = RecurrentCore(CoreConfig()), torch.zeros(1, 200_000, 64)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, -1))
with torch.no_grad(), use_backend("cpu"):
    try:
        core(hidden)
    except MemoryError as error:
        print("refused:", error)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    print("then:", core(hidden[:, :9]).last.isfinite().all().item())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory the Linux way")
def test_no_memory_is_an_error_and_no_crash() -> None:
    command = [sys.executable, "-c", NO_MEMORY_LEFT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused: lares_refine_forward: no memory" in done.stdout
    assert "then: True" in done.stdout


@pytest.mark.parametrize("name", ["mmx", "", " ", "generic\0x", "generic ", "GENERIC", "\udcff"])
def test_unknown_instruction_set(name: str) -> None:
    before = lib.instruction_set_in_use()
    said = f"asks for instruction set {name!r}, which is not available here; available are "
    with pytest.raises(BackendError, match=re.escape(said)):
        with lib.use_instruction_set(name):
            pass
    assert lib.instruction_set_in_use() == before


def test_instruction_sets_nest() -> None:
    best = lib.instruction_set_in_use()
    lowest = lib.instruction_sets()[-1]
    for outer in lib.instruction_sets():
        with lib.use_instruction_set(outer):
            with lib.use_instruction_set(lowest):
                assert lib.instruction_set_in_use() == lowest
                assert lib.instruction_set_in_use("bf16") == lowest
            assert lib.instruction_set_in_use() == outer
            with pytest.raises(BackendError), lib.use_instruction_set("mmx"):
                pass
            assert lib.instruction_set_in_use() == outer
    assert lib.instruction_set_in_use() == best


@pytest.mark.parametrize("name", [n for n in cpu_sets("bf16") if "bf16" in n])
def test_a_bf16_set_leaves_float32_alone(name: str) -> None:
    single, half = (lib.instruction_set_in_use(precision) for precision in lib.PRECISIONS)
    with lib.use_instruction_set(name):
        assert lib.instruction_set_in_use() == single
        assert lib.instruction_set_in_use("bf16") == name
    assert lib.instruction_set_in_use("bf16") == half


CHOSEN = """
from lares_kernels import CoreConfig, available_backends, explain
print(explain(CoreConfig(8, 1, 8, 1), [3], 2))
"""


@pytest.mark.parametrize("name", [*cpu_sets("bf16"), "mmx"])
def test_the_environment_chooses_an_instruction_set(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHOSEN],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, lib.ISA_VARIABLE: name},
        check=False,
    )
    if name == "mmx":
        assert done.returncode != 0
        assert done.stderr.splitlines()[-1].endswith(
            "LARES_CPU_ISA asks for instruction set 'mmx', which is not available here; "
            f"available are {', '.join(lib.instruction_sets('bf16'))}"
        )
    else:
        used = lib.instruction_sets()[0] if "bf16" in name else name
        assert f"fused C++ kernel ({used})" in done.stdout, done.stderr
