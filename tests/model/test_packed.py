"""Histories packed once: of padded rows and of flat arrays the same batch, and the same states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lares import LaresConfig, LaresModel
from lares.model import PackedHistories

ITEMS = torch.tensor([[3, 4, 5, 0], [7, 0, 0, 0], [1, 2, 9, 8]])
LENGTHS = torch.tensor([3, 1, 4])
FLAT = torch.tensor([3, 4, 5, 7, 1, 2, 9, 8])


def config(core: str = "attention", **options: object) -> LaresConfig:
    return LaresConfig(n_items=20, max_length=6, d_model=16, d_ff=16, core=core, **options)


def flat(config: LaresConfig, streams: Tensor) -> PackedHistories:
    return PackedHistories.from_flat(config, FLAT, LENGTHS, streams)


@pytest.mark.parametrize("core", ["attention", "filter", "bsarec"])
def test_padded_and_flat_are_the_same(core: str) -> None:
    torch.manual_seed(0)
    model = LaresModel(config(core)).eval()
    streams = torch.tensor([5, 0, 2])
    packed = flat(model.config, streams)
    padded = PackedHistories.from_padded(model.config, ITEMS, LENGTHS, streams)
    assert packed.padded[:, :4].tolist() == ITEMS.tolist() == padded.padded[:, :4].tolist()
    for batch in (packed, padded):
        assert len(batch) == 3
        assert torch.equal(batch.lengths, LENGTHS)
        assert torch.equal(batch.layout.streams, streams)
    with torch.no_grad():
        wanted = model.encoder(ITEMS, LENGTHS, 3, seed=4, sequence_ids=streams)
        for batch in (packed, padded):
            assert torch.equal(model.encoder(batch, None, 3, seed=4).last, wanted.last)


@pytest.mark.parametrize("core", ["attention", "filter"])
def test_joined_histories_are_those_of_the_parts(core: str) -> None:
    model = LaresModel(config(core)).eval()
    own, other = torch.arange(3), torch.arange(3) + 10
    with torch.no_grad():
        wanted = [
            model.encoder(flat(model.config, ids), None, 2, seed=1).last for ids in (own, other)
        ]
        streams = torch.cat((own, other))
        for batch in (
            flat(model.config, own).repeated(2, streams),
            PackedHistories.joined([flat(model.config, own), flat(model.config, other)], streams),
        ):
            found = model.encoder(batch, None, 2, seed=1).last
            assert torch.equal(found, torch.cat(wanted))


def test_of_longer_histories_the_last_items_are_kept() -> None:
    long = torch.arange(1, 10)[None]
    packed = PackedHistories.from_padded(config(), long, torch.tensor([9]))
    assert packed.items.tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("lengths", "ids", "message"),
    [
        (LENGTHS, None, "packed histories have lengths"),
        (None, torch.arange(3), "packed histories have lengths"),
    ],
)
def test_packed_histories_have_their_lengths(
    lengths: Tensor | None, ids: Tensor | None, message: str
) -> None:
    model = LaresModel(config())
    with pytest.raises(ValueError, match=message):
        model.encoder(flat(model.config, torch.arange(3)), lengths, sequence_ids=ids)
    with pytest.raises(ValueError, match="need lengths"):
        model.encoder(ITEMS)
