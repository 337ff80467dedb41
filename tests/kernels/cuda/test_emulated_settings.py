"""Ways to launch the CUDA kernels, run by the emulator: none changes a result."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cases.gpu import MAIN
from benchmarks.gpu import sweep as gpu_sweep
from benchmarks.gpu.candidates import CUDA, Question, setting
from benchmarks.gpu.sweep import Sweep, save
from lares_kernels import CoreConfig, explain, use_backend
from lares_kernels.binding import cuda_library as library
from lares_kernels.cuda.plan import LaunchPlan, carveout, launch_plan, shapes_of
from lares_kernels.cuda.settings import (
    ENVIRONMENT_VARIABLE,
    SHIPPED,
    Settings,
    settings,
    use_settings,
)
from tests.kernels.cuda.test_emulated import LENGTHS, PUBLISHED, SMALL, WIDE, outputs
from tests.kernels.cuda.test_emulated import check as check_outputs
from tests.kernels.cuda.test_emulated_gradients import check, gradients
from tests.kernels.problems import exact_problem, relative

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")
FAMILY = "sm90"  # of the card that the emulator is
AHEAD, TRANSPOSED = Settings(products_ahead=True), Settings(sides_transposed=True)
BOTH = Settings(products_ahead=True, sides_transposed=True)
STREAMED = Settings("streamed", "streamed")
STAGED = replace(STREAMED, forward_staged=True, backward_staged=True)
Flags = tuple[bool, bool]  # products are ahead, sides transposed


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Flags]:
    """By which settings each backward was launched."""
    found: list[Flags] = []
    run = library.run

    def noted(function: str, call: ctypes.Structure) -> None:
        if function == "lares_cuda_backward":
            assert call.resident or not call.transposed
            found.append((bool(call.products_ahead), bool(call.transposed)))
        run(function, call)

    monkeypatch.setattr(library, "run", noted)
    return found


def same_bits(config: CoreConfig, those: Settings, launched: list[Flags], **options: Any) -> None:
    """Hold gradients by ``those`` to the shipped ones, of sequences that run one to three steps."""
    core, hidden, sizes = exact_problem(config, LENGTHS)
    core, hidden = core.float(), hidden.float()
    options.setdefault("num_steps", torch.arange(len(LENGTHS)) % 3 + 1)
    with use_backend("cuda"):
        shipped = gradients(core, hidden, sizes, precision="bf16", **options)
        assert set(launched) == {(False, False)}
        launched.clear()
        with use_settings(FAMILY, those):
            found = gradients(core, hidden, sizes, precision="bf16", **options)
    shapes, card = shapes_of(config), library.card(0)
    plan = launch_plan(shapes, max(LENGTHS), True, card, True)
    assert isinstance(plan, LaunchPlan)
    assert set(launched) == {(those.products_ahead, those.sides_transposed and plan.resident)}
    for name, mine in found.items():
        assert torch.equal(mine, shipped[name]), name


@pytest.mark.parametrize("adapter", ["concat", "add"])
@pytest.mark.parametrize("those", [BOTH, AHEAD, TRANSPOSED])
def test_the_products_of_weights(those: Settings, adapter: str, launched: list[Flags]) -> None:
    same_bits(replace(SMALL, adapter=adapter, n_layers=2), those, launched, rollouts=2)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("those", [AHEAD, TRANSPOSED, BOTH])
def test_the_products_of_wider_weights(those: Settings, heads: int, launched: list[Flags]) -> None:
    """Heads of 64 have their gradients read back where they were left."""
    same_bits(replace(PUBLISHED, n_heads=heads), those, launched)
    launched.clear()
    same_bits(replace(WIDE, n_heads=max(2, heads), adapter="concat"), those, launched)


def test_steps_in_groups(launched: list[Flags], monkeypatch: pytest.MonkeyPatch) -> None:
    from lares_kernels.cuda import backend

    monkeypatch.setattr(backend, "spill_bytes", lambda device: 1)
    same_bits(SMALL, BOTH, launched)
    assert len(launched) == 3


@pytest.mark.parametrize("warps", [1, 64])
def test_tokens_in_other_parts(warps: int) -> None:
    with use_settings(FAMILY, Settings(product_warps=warps, products_ahead=True)):
        check(SMALL, LENGTHS, "fp16")


@pytest.mark.parametrize("heads", [1, 2])
def test_weights_that_are_read_again(heads: int) -> None:
    with use_settings(FAMILY, STREAMED):
        check(replace(PUBLISHED, n_heads=heads), LENGTHS)


@pytest.mark.parametrize("rate", [0.25, 0.0])
@pytest.mark.parametrize(
    ("width", "heads", "inner", "layers"),
    # Pieces of one to four tiles of a head, whole and half; the last of a layer is full or short.
    [(64, 2, 160, 2), (64, 1, 33, 1), (64, 8, 64, 3), (128, 4, 160, 2), (128, 2, 64, 1)],
)
def test_weights_that_pass_in_pieces(
    width: int, heads: int, inner: int, layers: int, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits are those of weights that each warp reads for itself, for units that have another
    depth than the block's others, or no tile, packed rows, rollouts and warps that nobody reads."""
    config = CoreConfig(width, heads, inner, layers, dropout=rate, attn_dropout=rate)
    staged: list[bool] = []
    run = library.run

    def noted(function: str, call: ctypes.Structure) -> None:
        if function in ("lares_cuda_forward", "lares_cuda_backward"):
            staged.append(bool(call.staged))
        run(function, call)

    monkeypatch.setattr(library, "run", noted)
    for lengths in (LENGTHS, [50, 64, 33, 3, 60, 64, 49, 17]):  # in one round of tiles, and in more
        core, hidden, sizes = exact_problem(config, lengths)
        core, hidden = core.float(), hidden.float()
        rows = torch.cat([row[:n] for row, n in zip(hidden, lengths, strict=True)])
        offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int()
        depths = torch.arange(len(lengths)) * 5 % 3 + 1
        found = []
        for those in (STREAMED, STAGED):
            with use_backend("cuda"), use_settings(FAMILY, those):
                with torch.no_grad():
                    given = {"num_steps": 2, "rollouts": 2, "precision": "bf16"}
                    packed = core(rows, cu_seqlens=offsets, **given).last
                    padded = outputs(core, hidden, sizes, num_steps=depths, precision="bf16")
                backward = gradients(core, hidden, sizes, num_steps=depths, precision="bf16")
            found.append([packed, *padded, *backward.values()])
        for mine, streamed in zip(*found, strict=True):
            if width == 128 and heads == 2:  # fewer units in backward: sums in another order
                assert relative(mine, streamed) < 1e-6
            else:
                assert torch.equal(mine, streamed)
    assert staged == 2 * [*4 * [False], *4 * [True]]


def test_staged_numbers_that_are_not_finite() -> None:
    """Keys and values, which come from two pieces in wide rows, are kept apart together."""
    for config in (WIDE, replace(PUBLISHED, n_layers=1)):
        core, hidden, sizes = exact_problem(config, LENGTHS)
        core, hidden = core.float(), hidden.float()
        hidden[2, 4, 7], hidden[4, 0, 0] = float("nan"), float("inf")
        found = []
        for those in (STREAMED, STAGED):
            with use_backend("cuda"), use_settings(FAMILY, those), torch.no_grad():
                found.append(outputs(core, hidden, sizes, num_steps=2, precision="bf16"))
        for mine, streamed in zip(*found, strict=True):
            apart = ~mine.flatten(1).isfinite().all(1)
            assert apart.nonzero().flatten().tolist() == [2, 4]
            torch.testing.assert_close(mine, streamed, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("adapter", ["gate", "concat", "none"])
def test_staged_weights(adapter: str) -> None:
    """Outputs and gradients by the yardstick; ``explain`` tells."""
    with use_settings(FAMILY, STAGED):
        for config in (replace(PUBLISHED, adapter=adapter), replace(WIDE, adapter=adapter)):
            check_outputs(config, LENGTHS, "fp16")
            check_outputs(replace(config, attn_dropout=0.0), [40, 88, 128, 65, 3])
            check(config, LENGTHS)
        with use_backend("cuda"):
            assert "weights staged through" in explain(config, [3] * 9, precision="fp16").plan


def test_a_sweep_writes_what_calls_are_launched_by(
    tmp_path: Path, launched: list[Flags], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates are equal to the reference; whichever is the faster here, its file is read."""
    case = replace(MAIN, d_model=32, n_heads=2, d_ff=32, batch=5, steps=2, backward=True)
    monkeypatch.setattr(gpu_sweep, "TURNS", 1)
    monkeypatch.setattr(gpu_sweep, "CALLS_A_TURN", 1)
    monkeypatch.setattr(gpu_sweep, "WORTH", -100.0)
    said: list[str] = []
    sweep = Sweep(FAMILY, "cpu", 100.0, say=said.append, of=CUDA)
    ways = {"both": setting(products_ahead=True, sides_transposed=True)}
    sweep.answer(Question("weights", "half", 16, (case,), ways))
    assert "of the time" in said[0], said
    assert sweep.rules == BOTH
    assert set(launched) == {(False, False), (True, True)}
    save(sweep, tmp_path)

    launched.clear()
    core, hidden, sizes = exact_problem(SMALL, [3, 5])
    core, hidden = core.float(), hidden.float()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    settings.cache_clear()
    try:
        with use_backend("cuda"):
            gradients(core, hidden, sizes, num_steps=1, precision="bf16")
        assert launched == [(True, True)]
        (tmp_path / "cuda_sm90.json").write_text('{"product_warps": 0}')
        settings.cache_clear()
        with use_backend("cuda"), pytest.raises(ValueError, match="product_warps is 0"):
            gradients(core, hidden, sizes, num_steps=1, precision="bf16")
    finally:
        monkeypatch.delenv(ENVIRONMENT_VARIABLE)
        settings.cache_clear()
    assert settings(FAMILY) == SHIPPED


@pytest.mark.parametrize("largest", [True, False])
def test_kernels_ask_for_what_a_block_takes(largest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    run = library.run

    def noted(function: str, call: ctypes.Structure) -> None:
        if function in ("lares_cuda_forward", "lares_cuda_backward"):
            asked.append((call.shared_bytes, call.carveout))
        run(function, call)

    monkeypatch.setattr(library, "run", noted)
    core, hidden, sizes = exact_problem(SMALL, [3, 5])
    with use_backend("cuda"), use_settings(FAMILY, Settings(largest_cache=largest)):
        gradients(core.float(), hidden.float(), sizes, num_steps=1, precision="bf16")
    assert len(asked) == 2
    for shared, hundredths in asked:
        assert hundredths == (carveout(shared, library.card(0)) if largest else 0)
