"""The encoder: options, random addresses, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lares import LaresConfig, LaresEncoder
from lares.errors import ConfigError
from lares_kernels.spec.layout import Layout

CONFIG = {"n_items": 30, "max_length": 6, "d_model": 16, "d_ff": 24}
ITEMS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 0, 0, 0], [6, 5, 3, 5, 0]])
LENGTHS = torch.tensor([5, 2, 4])


def make(**options) -> LaresEncoder:
    torch.manual_seed(0)
    encoder = LaresEncoder(LaresConfig(**CONFIG, **options))
    with torch.no_grad():  # weights large enough that every part shows in the output
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def test_shapes() -> None:
    out = make()(ITEMS, LENGTHS, 3, return_trajectory=True, return_state=True)
    assert out.last.shape == (3, 16)
    assert out.trajectory.shape == (3, 3, 16)
    assert out.state.shape == out.hidden.shape == (3, 5, 16)
    assert torch.equal(out.last, out.trajectory[:, -1])
    assert torch.equal(out.last[0], out.state[0, 4])
    out = make()(ITEMS, LENGTHS)
    assert out.trajectory is None
    assert out.state is None


def test_a_gpu_is_told_the_greatest_length() -> None:
    """It would be waited for; the CPU knows short calls again, which say nothing of it."""
    layout = Layout.from_lengths(LENGTHS, torch.arange(3))
    rows = make()._rows(torch.empty(11, 16, device="meta"), layout)
    assert rows["max_length"] == 5
    assert "max_length" not in make()._rows(torch.empty(11, 16), layout)


def test_default_depth_is_the_training_mean() -> None:
    encoder = make(mean_depth=7).eval()
    assert torch.equal(encoder(ITEMS, LENGTHS).last, encoder(ITEMS, LENGTHS, 7).last)


@pytest.mark.parametrize("training", [False, True])
def test_noise_is_addressed_by_seed_and_sequence(training: bool) -> None:
    encoder = make(dropout=0.5, attn_dropout=0.5).train(training)
    first = encoder(ITEMS, LENGTHS, seed=4).last
    assert torch.equal(first, encoder(ITEMS, LENGTHS, seed=4).last)
    assert not torch.equal(first, encoder(ITEMS, LENGTHS, seed=5).last)
    alone = encoder(ITEMS[2:], LENGTHS[2:], seed=4, sequence_ids=torch.tensor([2])).last
    torch.testing.assert_close(alone, first[2:], rtol=1e-5, atol=1e-6)


def test_state_modes() -> None:
    encoder = make(state_mode="zero", dropout=0.0, attn_dropout=0.0)
    zero = encoder(ITEMS, LENGTHS, initial_state=torch.zeros(3, 5, 16)).last
    torch.testing.assert_close(encoder(ITEMS, LENGTHS, seed=1).last, zero)
    other = make(state_mode="normal_zero", dropout=0.0, attn_dropout=0.0)
    assert not torch.allclose(other(ITEMS, LENGTHS, seed=1).last, zero)
    torch.testing.assert_close(other.eval()(ITEMS, LENGTHS, seed=1).last, zero)
    drawn = make(state_mode="normal").eval()
    assert not torch.allclose(drawn(ITEMS, LENGTHS, seed=1).last, zero)


def test_long_histories_keep_their_newest_items() -> None:
    encoder = make().eval()
    long = torch.tensor([[7, 8, 3, 1, 4, 1, 5, 9]])
    torch.testing.assert_close(
        encoder(long, torch.tensor([8])).last, encoder(long[:, 2:], torch.tensor([6])).last
    )


def test_without_recurrence_it_is_the_pre_block() -> None:
    encoder = make(n_core_layers=0).eval()
    assert encoder.core is None
    out = encoder(ITEMS, LENGTHS, return_state=True, return_trajectory=True)
    assert out.trajectory is None
    torch.testing.assert_close(out.last[1], out.hidden[1, 1])
    with pytest.raises(ValueError, match="num_steps"):
        encoder(ITEMS, LENGTHS, 2)


def test_without_pre_block() -> None:
    assert make(n_pre_layers=0)(ITEMS, LENGTHS).last.isfinite().all()


@pytest.mark.parametrize(
    ("items", "lengths", "message"),
    [
        ([[1, 2]], [0], "length 0"),
        ([[1, 30]], [2], "30"),
        ([[1, -2]], [2], "-2"),
        ([[1, 0, 3]], [3], "0"),
        ([[1, 2]], [3], "3"),
    ],
)
def test_bad_histories(items, lengths, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()(torch.tensor(items), torch.tensor(lengths))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_itms": 3}, "unknown model option 'n_itms'; did you mean 'n_items'?"),
        ({}, "'n_items' is missing"),
        ({"n_items": 1}, "n_items"),
        ({"n_items": 9, "max_length": 0}, "max_length"),
        ({"n_items": 9, "depth_sampler": "gauss"}, "depth_sampler is 'gauss'"),
        ({"n_items": 9, "state_mode": "one"}, "state_mode is 'one'"),
        ({"n_items": 9, "adapter": "none"}, "set n_core_layers=0"),
        ({"n_items": 9, "tau": 0.0}, "tau"),
        ({"n_items": 9, "n_heads": 5}, "does not divide d_model"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LaresConfig.from_dict(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "lengths", "message"),
    [
        (ITEMS.double(), LENGTHS, r"item_seq must be .* whole numbers; got .*float64"),
        (ITEMS > 0, LENGTHS, r"item_seq must be .*bool"),
        (ITEMS.to(torch.complex64), LENGTHS, r"item_seq must be .*complex64"),
        (ITEMS.double().numpy(), LENGTHS, r"item_seq must be .*float64"),
        (ITEMS.numpy() > 0, LENGTHS, r"item_seq must be .*bool"),
        ([[1.0, 2.0]], [2], r"item_seq must be .*float32"),
        ([[1.5, float("nan")]], [2], r"item_seq must be .*float32"),
        (ITEMS, LENGTHS.double(), r"lengths must be .* whole numbers, .*float64"),
        (ITEMS, LENGTHS > 0, r"lengths must be .*bool"),
        (ITEMS, LENGTHS.numpy().astype("float32"), r"lengths must be .*float32"),
    ],
)
def test_histories_that_are_no_whole_numbers(ids: Any, lengths: Any, message: str) -> None:
    encoder = make().eval()
    for run in (
        lambda: encoder(ids, lengths, 2),
        lambda: encoder.token_states(ids, lengths, [1]),
    ):
        with pytest.raises(ValueError, match=message):
            run()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_histories_of_every_whole_type(dtype: torch.dtype) -> None:
    encoder = make().eval()
    wanted = encoder(ITEMS, LENGTHS, 2).last
    assert torch.equal(encoder(ITEMS.to(dtype), LENGTHS.to(dtype), 2).last, wanted)
    assert torch.equal(encoder(ITEMS.numpy(), LENGTHS.numpy(), 2).last, wanted)
    assert torch.equal(encoder(ITEMS.tolist(), LENGTHS.tolist(), 2).last, wanted)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.uint16, torch.int32, torch.uint64]
)
def test_ids_and_lengths_of_narrow_types(dtype: torch.dtype) -> None:
    """They neither wrap round nor fail to compare."""
    encoder = LaresEncoder(LaresConfig(n_items=30, max_length=20, d_model=16, d_ff=16)).eval()
    ids, lengths = torch.randint(1, 30, (2, 25)), torch.tensor([25, 3])
    found = encoder(ids.to(dtype), lengths.to(dtype), 2).last
    assert torch.equal(found, encoder(ids, lengths, 2).last)


def test_sequence_ids_are_whole_numbers() -> None:
    encoder = LaresEncoder(LaresConfig(n_items=30, d_model=16, d_ff=16)).eval()
    ids, lengths = torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 3])
    with pytest.raises(ValueError, match="sequence_ids"):
        encoder(ids, lengths, 2, sequence_ids=torch.tensor([0.9, 1.9]))
