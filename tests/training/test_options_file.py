"""What a run writes of its options is what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from lares.training.options_file import read_yaml, yaml_text

VALUES = [
    "1e6",
    "1e-3",
    "-.5e2",
    "12",
    "true",
    "null",
    "2026-01-02",
    "1_000",
    "",
    1e-3,
    1e6,
    12,
    None,
    True,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_read_back(value: object, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml_text({"data": {"path": value}}))
    found = read_yaml(path)["data"]["path"]
    assert found == value
    assert type(found) is type(value)
