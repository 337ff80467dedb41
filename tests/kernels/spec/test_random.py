"""The shared generator: known answers, distributions, addresses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lares_kernels.spec import noise
from lares_kernels.spec.philox import philox4x32


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected) -> None:
    words = philox4x32(*(torch.tensor(word) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


def test_philox_equals_numpys() -> None:
    """NumPy's Philox is the 64-bit sibling; check ours through a scalar transcription instead."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        counter = [int(v) for v in rng.integers(2**32, size=4)]
        key = int(rng.integers(2**63))
        x, k = list(counter), [key & 0xFFFFFFFF, key >> 32]
        for _ in range(10):
            p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
            x = [
                (p1 >> 32) ^ x[1] ^ k[0],
                p1 & 0xFFFFFFFF,
                (p0 >> 32) ^ x[3] ^ k[1],
                p0 & 0xFFFFFFFF,
            ]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        words = philox4x32(*(torch.tensor(word) for word in counter), key)
        assert [int(word) for word in words] == x


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1, 1 / 256, 255 / 256])
def test_dropout_rate_is_the_quantised_one(rate: float) -> None:
    streams = torch.arange(4000)
    site = noise.site_word(noise.Site.RESIDUAL, 1, 3)
    keep = noise.row_keep(streams, torch.zeros_like(streams), site, rate, 100, seed=5)
    share, n = 1 - keep.double().mean().item(), keep.numel()
    expected = noise.quantised_rate(rate)
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)


def test_masks_do_not_depend_on_what_else_is_drawn() -> None:
    site = noise.site_word(noise.Site.RESIDUAL, 0, 1)
    streams, positions = torch.tensor([3, 9, 4]), torch.tensor([0, 7, 2])
    together = noise.row_keep(streams, positions, site, 0.3, 150, seed=1)
    for row in range(3):
        alone = noise.row_keep(
            streams[row : row + 1], positions[row : row + 1], site, 0.3, 90, seed=1
        )
        assert torch.equal(alone[0], together[row, :90])


def test_attention_masks_are_prefixes_of_wider_ones() -> None:
    streams = torch.arange(5)
    options = {"layer": 1, "step": 2, "rate": 0.4, "n_heads": 3, "seed": 8}
    wide = noise.attention_keep(streams, streams, n_keys=200, **options)
    narrow = noise.attention_keep(streams, streams, n_keys=70, **options)
    assert torch.equal(wide[..., :70], narrow)
    assert not torch.equal(wide[:, 0, :64], wide[:, 1, :64])
    assert not torch.equal(wide[:, 0, :64], wide[:, 0, 64:128])


def test_sites_layers_steps_and_seeds_differ() -> None:
    streams = torch.zeros(1, dtype=torch.int64)
    drawn = [
        noise.row_keep(streams, streams, noise.site_word(site, layer, step), 0.5, 256, seed)
        for site in (noise.Site.RESIDUAL, noise.Site.EMBEDDING)
        for layer in (0, 1)
        for step in (0, 1, 300)
        for seed in (0, 1, 1 << 40)
    ]
    assert len({tuple(keep[0].tolist()) for keep in drawn}) == len(drawn)


def test_initial_state_is_a_truncated_normal() -> None:
    streams = torch.arange(4000)
    state = noise.initial_state(streams, torch.zeros_like(streams), width=64, scale=2.0, seed=3)
    z = state.double() / 2.0
    assert z.abs().max() < 3.0
    expected_variance = 1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2))
    assert abs(z.mean()) < 5 / math.sqrt(z.numel())
    assert abs(z.var() - expected_variance) < 0.01
    for point in (-2.0, -1.0, 0.0, 0.5, 1.5, 2.5):
        expected = 0.5 + 0.5 * math.erf(point / math.sqrt(2)) / math.erf(3 / math.sqrt(2))
        assert abs((z < point).double().mean() - expected) < 0.006


def test_inverse_distribution_function_is_accurate() -> None:
    words = torch.arange(0, 2**32, 2**16 + 1)
    found = noise.truncated_normal_from_words(words).double()
    signed = (words >> 8) - ((words >> 31) << 24)
    t = (signed.double() + 0.5) * 2.0**-23
    exact = math.sqrt(2) * torch.erfinv(math.erf(3 / math.sqrt(2)) * t)
    assert (found - exact).abs().max() < 2e-6
