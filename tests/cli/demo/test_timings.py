"""What the demo times: two programs of one formula, in turn."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from lares.cli.demo import race as module
from lares.cli.demo.drawn import _print_speed
from lares.cli.demo.labelled import labelled, lines_labelled
from lares.cli.demo.plain import PlainModel
from lares.cli.demo.race import Race
from lares.cli.demo.timings import Speed, Timed
from lares.data import load_dataset
from lares.errors import LaresError
from lares.model.config import LaresConfig


@pytest.fixture(scope="module")
def dataset(interactions: Path):
    return load_dataset(interactions)


def timed(dataset, **options: object) -> Timed:
    config = LaresConfig.from_dict(
        {
            **{"n_items": dataset.vocabulary.n_items, "d_model": 16, "d_ff": 24, "max_length": 6},
            **{"state_mode": "zero", "mean_depth": 3, **options},
        }
    )
    return Timed(config, dataset, seed=1)


@pytest.mark.parametrize(
    "options",
    [{}, {"n_core_layers": 0}, {"n_pre_layers": 0, "n_core_layers": 1}],
    ids=["lares", "sasrec", "no pre-block"],
)
def test_both_programs_give_the_same_numbers(dataset, options: dict[str, object]) -> None:
    """Histories are longer than the window, too."""
    found = timed(dataset, **options).agreement()
    assert 0 < found.scores < 1e-5 < found.largest_score
    assert 0 < found.gradients < 1e-4
    assert found.lists == found.same_lists == 60


def test_a_batch_holds_what_trains(dataset) -> None:
    batches = timed(dataset, max_length=50).batches
    histories = {tuple(history.tolist()) for batch in batches for history in batch}
    sequences = dataset.sequences
    wanted = {
        tuple(sequences.items[first : end - 2].tolist())
        for first, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
        if end - first >= 4
    }
    assert histories == wanted


@pytest.mark.parametrize("wrong", [1.01, torch.nan])
@pytest.mark.parametrize("name", ["core_norm_weight", "up_weight"])
def test_programs_that_are_apart_are_an_error(dataset, name: str, wrong: float) -> None:
    two = timed(dataset)
    core = two.plain.encoder.core
    with torch.no_grad():
        getattr(core, name).mul_(wrong)
    with pytest.raises(LaresError, match="apart on the same weights: scores by .* gradients by"):
        two.agreement()


def test_gradients_alone_that_are_apart(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    two = timed(dataset)
    loss = PlainModel.loss
    monkeypatch.setattr(PlainModel, "loss", lambda self, batch: loss(self, batch) * 1.01)
    with pytest.raises(LaresError, match="apart on the same weights"):
        two.agreement()


def test_a_step_trains(dataset) -> None:
    two = timed(dataset, dropout=0.0, attn_dropout=0.0)
    batch = two.batches[0]
    before = two.plain.loss(batch).item()
    ours, plain = two.steps()
    for _ in range(20):
        ours()
        plain()
    after = two._loss(batch).item(), two.plain.loss(batch).item()
    assert max(after) < before
    assert after[0] == pytest.approx(after[1], rel=1e-3)


def test_a_race_is_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slows down all the while; what one takes beside the other stays the same."""
    now, order = 0.0, []

    def program(name: str, seconds: float):
        def call() -> None:
            nonlocal now
            order.append(name)
            now += seconds * (1 + 0.01 * len(order))

        return call

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    race = Race({"slow": program("slow", 3.0), "fast": program("fast", 1.0)}, seconds=40.0)
    assert order[4:8] == ["slow", "fast", "fast", "slow"]
    assert race.rounds > 3
    ratio = race.ratio("slow", "fast")
    assert ratio.low <= ratio.median <= ratio.high
    assert ratio.median == pytest.approx(3.0, rel=0.02)
    assert race.seconds("fast") > 1.0


def test_short_calls_are_timed_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, 0

    def call() -> None:
        nonlocal now, calls
        calls += 1
        now += 0.001 if calls % 5 else 0.0  # one of five that counts less

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    race = Race({"short": call}, seconds=0.0)
    assert race.rounds == 3  # the fewest
    assert calls == 2 + 3 * (1 + 4)
    assert race.seconds("short") == pytest.approx(0.00075)


def test_lines_say_which_data_they_are_of(capsys) -> None:
    with lines_labelled("drawn"):
        print("epoch 1", end="  loss 2.5\n")
        print("\nfilms: 5 users\n" + "word " * 30)
        print("no end", end="")
    told = capsys.readouterr().out.split("\n")
    assert told[:3] == ["drawn  epoch 1  loss 2.5", "", "drawn  films: 5 users"]
    assert told[3].startswith("drawn  word word")
    assert told[4].startswith("       word")
    assert max(map(len, told)) <= 80
    assert told[-2:] == ["drawn  no end", ""]  # it has one now
    assert labelled("drawn", "drawn: 5 users") == "drawn  5 users"


def test_rows_are_as_wide_as_a_terminal(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the times are."""
    now = 0.0

    def call(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    for here, plain in ((2e-6, 4e-3), (0.9994, 0.01), (123.4, 12345.6), (0.05, 0.0512)):
        programs = {"SASRec here": partial(call, here), "SASRec plain": partial(call, plain)}
        _print_speed("SASRec", Speed("1 request, 50 items", Race(programs, seconds=0.0)))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert all(len(line) <= 80 and line.startswith("drawn  SASRec") for line in told)
    assert "0.002 ms" in told[0]
    assert "2000x  (2000 to 2000)" in told[0]
    assert "999 ms" in told[1]
    assert "0.01x" in told[1]
    assert "1.0x  (1.0 to 1.0)" in told[3]
