"""The examples run, on little data."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent.parent / "examples"


def example(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def counting_data(tmp_path: Path) -> Path:
    """Users who take items in their order, from anywhere."""
    rng, path = np.random.default_rng(0), tmp_path / "counting.csv"
    with path.open("w") as file:
        file.write("user_id,item_id,timestamp\n")
        for user in range(60):
            start = rng.integers(25)
            file.writelines(f"{user},{(start + t) % 25},{t}\n" for t in range(rng.integers(5, 12)))
    return path


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> None:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_sasrec_before_after(counting_data: Path) -> None:
    options = ["--epochs", "25", "--length", "10", "--width", "16", "--batch", "16"]
    found = example("sasrec_before_after").main([str(counting_data), *options, "--dropout", "0"])
    before, after = found["before"][0], found["after"][0]
    assert np.allclose(before, after, rtol=1e-3)
    assert found["after"][2] == pytest.approx(found["before"][2], abs=0.02)
    for losses, _, metric in found.values():
        assert losses[-1] < 0.7 * losses[0]
        assert metric > 0.3


def test_sasrec_differs_in_five_lines() -> None:
    text = (FOLDER / "sasrec_before_after.py").read_text()
    assert sum(line.endswith("# lares") for line in text.splitlines()) == 5


def test_custom_model() -> None:
    first, last = example("custom_model").main(["--train-steps", "80"])
    assert last < 0.7 * first


def test_recbole_lares(counting_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("recbole", reason="RecBole is not installed")
    monkeypatch.chdir(counting_data.parent)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "")
    found = example("recbole_lares").main([str(counting_data), "--epochs", "2", "--width", "16"])
    assert set(found) == {"SASRec", "FusedSASRec", "LARES"}
