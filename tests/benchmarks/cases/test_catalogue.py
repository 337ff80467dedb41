"""The benchmark of the catalogue ops: what it refuses, what it writes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases.catalogue import Batch, CatalogueCase, batch_of, check, plain, streamed
from benchmarks.core.memory import peak_growth
from benchmarks.gpu import catalogue as gpu_catalogue
from benchmarks.report.results import CatalogueRow, read_rows
from benchmarks.report.sections import section

CASES = [
    *(CatalogueCase("cross_entropy", 300, precision) for precision in ("fp32", "bf16")),
    CatalogueCase("ranks", 300),
    CatalogueCase("top_k", 300),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_op_passes_and_what_is_wrong_does_not(case: CatalogueCase) -> None:
    check(case)

    def wrong(case: CatalogueCase, batch: Batch) -> list[Tensor]:
        first, *others = streamed(case, batch)
        return [first + 3, *others]

    with pytest.raises(AssertionError):
        check(case, wrong)


def test_the_truth_is_in_float64() -> None:
    batch = batch_of(300, 8).first(8, torch.float64)
    losses, *grads = plain(CASES[0], batch)
    assert {each.dtype for each in (losses, *grads)} == {torch.float64}
    wanted = functional.cross_entropy(
        batch.queries @ batch.items.mT, batch.targets, reduction="none"
    )
    torch.testing.assert_close(losses, wanted.detach(), rtol=1e-14, atol=0.0)


def test_one_wrong_gradient_of_an_item() -> None:
    def wrong(case: CatalogueCase, batch: Batch) -> list[Tensor]:
        *others, g_items = streamed(case, batch)
        g_items[7] *= 1.5
        return [*others, g_items]

    with pytest.raises(AssertionError, match="cross_entropy-300"):
        check(CASES[0], wrong)


def test_a_peer_that_gives_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss() -> object:
        return lambda items, queries, targets: functional.cross_entropy(queries @ items.mT, targets)

    module = SimpleNamespace(LigerFusedLinearCrossEntropyLoss=loss)
    monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace(transformers=module))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    assert gpu_catalogue.liger(CASES[0], batch_of(300, 8))[0].dim() == 0
    check(CASES[0], gpu_catalogue.liger)

    def wrong(case: CatalogueCase, batch: Batch) -> list[Tensor]:
        mean, *others = gpu_catalogue.liger(case, batch)
        return [mean * 1.001, *others]

    with pytest.raises(AssertionError):
        check(CASES[0], wrong)


def test_rows_and_their_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_catalogue, "BUDGET", 0.01)
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--items", "300", "--no-compile"]
    gpu_catalogue.main(arguments)
    rows = read_rows(tmp_path / "catalogue.csv", CatalogueRow)
    found = [(row.implementation, row.precision, row.n_items) for row in rows]
    assert found == [(name, p, 300) for p in ("fp32", "bf16") for name in ("plain", "op")]
    assert all(row.median_us and row.speedup for row in rows)
    text = section(rows, "catalogue", "page")
    assert "| cross_entropy | 300 |" in text
    assert text.count("op") >= 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone can tell")
def test_peak_growth_sees_what_is_freed_again() -> None:
    assert peak_growth(lambda: torch.ones(2**26).sum()) > 200e6
