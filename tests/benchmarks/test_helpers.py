"""The pure parts of the benchmarks: lengths, operation counts, rounds in turn, bytes kept, checks."""

from __future__ import annotations

import pytest
import torch

import lares_kernels
from benchmarks.cases import equality
from benchmarks.cases.flops import flop_count
from benchmarks.cases.implementations import build
from benchmarks.cases.lengths import DISTRIBUTIONS, PREFIXES, draw_lengths
from benchmarks.cases.op import Case
from benchmarks.cases.problem import problem_of
from benchmarks.core.memory import bytes_saved
from benchmarks.core.race import Race
from benchmarks.steps.spt import SptStep

SMALL = Case("small", d_model=16, n_heads=2, d_ff=32, steps=2, batch=6, max_length=20)


def test_the_table_of_prefixes() -> None:
    assert sum(PREFIXES) == 131_413
    mean = sum(n * count for n, count in enumerate(PREFIXES, 1)) / sum(PREFIXES)
    assert mean == pytest.approx(6.70, abs=0.01)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_lengths_are_in_range_and_repeatable(distribution: str) -> None:
    lengths = draw_lengths(distribution, 500, 20)
    assert lengths.shape == (500,)
    assert 1 <= int(lengths.min()) <= int(lengths.max()) == 20
    assert torch.equal(lengths, draw_lengths(distribution, 500, 20))


def test_lengths_follow_the_table() -> None:
    lengths = draw_lengths("prefixes", 50_000, 20)
    found = torch.bincount(lengths, minlength=21)[1:] / len(lengths)
    assert found.tolist() == pytest.approx([n / sum(PREFIXES) for n in PREFIXES], abs=0.01)


def test_flops_of_one_token_by_hand() -> None:
    # Query, key, value 3*4*2*4, output 2*16, feed-forward 2*2*4*8; one pair of width 4, twice.
    one = {"d_model": 4, "d_ff": 8, "n_layers": 1, "steps": 1}
    assert flop_count([1], **one, backward=False) == 96 + 32 + 128 + 16
    assert flop_count([1], **one, backward=True) == 3 * 272
    assert flop_count([3], **one, backward=False) == 3 * 256 + 6 * 16
    assert flop_count([1, 3], **(one | {"n_layers": 2, "steps": 5}), backward=False) == 10 * (
        4 * 256 + 7 * 16
    )


def test_a_race_takes_turns_and_drops_the_warm_up() -> None:
    order: list[str] = []
    race = Race({name: lambda name=name: order.append(name) for name in "abc"})
    race.pace = dict.fromkeys("abc", 0.004)
    for _ in range(2):
        race.others()
        race.subject()
    # Calls this short are each preceded by one that is not timed.
    assert "".join(order) == "abc" + 2 * "aabbcc"
    assert {name: len(samples) for name, samples in race.samples.items()} == {
        "a": 2,
        "b": 2,
        "c": 2,
    }
    assert race.summary("a").speedup == 1.0


def test_calls_before_a_turn_fill_the_caches() -> None:
    calls = dict.fromkeys("ab", 0)

    def count(name: str) -> None:
        calls[name] += 1

    race = Race({name: lambda name=name: count(name) for name in "ab"})
    race.pace = {"a": 0.0005, "b": 1.0}
    race.others()
    race.subject()
    assert calls == {"a": 1 + 4 + 1, "b": 1 + 1}
    assert {name: len(samples) for name, samples in race.samples.items()} == {"a": 1, "b": 1}
    assert race.round_seconds == 5 * 0.0005 + 1.0


def test_bytes_saved_counts_each_storage_once() -> None:
    weight = torch.ones(8, requires_grad=True)
    x = torch.ones(8)

    def forward() -> torch.Tensor:
        product = x * weight
        return (product * product).sum()  # saves product twice, and weight's partner x

    assert bytes_saved(forward, [weight]) == 2 * 8 * 4
    assert bytes_saved(forward, [weight, x]) == 8 * 4


@pytest.mark.parametrize("name", ["plain", "packed", "op:reference"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_implementations_equal_the_equations(name: str, precision: str) -> None:
    equality.check(name, Case(**{**vars(SMALL), "precision": precision}))


@pytest.mark.parametrize("name", ["plain", "op:reference"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_their_gradients_do_so_too(name: str, precision: str) -> None:
    equality.check(name, Case(**{**vars(SMALL), "precision": precision, "backward": True}))


def test_packed_with_onednn_products() -> None:
    case = Case(**{**vars(SMALL), "batch": 64})
    problem = problem_of(case)
    assert int(problem.lengths.sum()) > 128
    equality.check("packed", case)


def test_a_wrong_result_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> object:
        program = build(*arguments)  # type: ignore[arg-type]
        return lambda state: program(state) * 1.001

    equality.exact_values(SMALL.shape, False, False)  # kept: it must not come from `wrong`
    monkeypatch.setattr(equality, "build", wrong)
    with pytest.raises(AssertionError, match="no time is reported"):
        equality.check("plain", SMALL)


def test_plain_has_dropout_only_where_asked() -> None:
    problem = problem_of(SMALL)
    without, dropped = (build("plain", problem, "fp32", on)(problem.state) for on in (False, True))
    assert not torch.allclose(without, dropped)


def test_the_plain_step_runs_none_of_our_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of the objective under another name would leave the peer on what it is held against."""
    used = []
    monkeypatch.setattr(
        lares_kernels, "catalogue_cross_entropy", lambda *a, **k: used.append(a) or a[0].sum()
    )
    SptStep("scientific18", 8, plain=True)()
    assert not used
    SptStep("scientific18", 8, plain=False)()
    assert used
