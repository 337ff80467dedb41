"""What is remembered of compiled kernels is held to what compiling gives."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from tests.kernels.compiled_record import WRITE_TO, is_compiled_anew
from tests.kernels.conftest import RecordOf


def never() -> list[int]:
    raise AssertionError("is compiled although it is known")


def key_of_another_day() -> str:
    return f"{datetime.date.today().toordinal() + 1:024x}"


def test_what_is_known_is_not_compiled(record_of: RecordOf) -> None:
    key = key_of_another_day()
    assert record_of({key: [1, 2]}).resolve(key, "kernel", never) == [1, 2]
    assert record_of({}).resolve(key, "kernel", lambda: [3]) == [3]


@pytest.mark.parametrize("asked", ["by the day", "by the variable"])
def test_a_wrong_entry_is_refused(
    record_of: RecordOf, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    key = key_of_another_day()
    if asked == "by the day":
        key = f"{int(key, 16) - 1:024x}"
    else:
        monkeypatch.setenv("LARES_COMPILE_ANEW", "1")
    assert record_of({key: [3]}).resolve(key, "kernel", lambda: [3]) == [3]
    with pytest.raises(AssertionError, match=r"kernel takes \[3\], but .* says \[1, 2\]: write it"):
        record_of({key: [1, 2]}).resolve(key, "kernel", lambda: [3])


def test_a_wrong_entry_can_be_written_anew(
    record_of: RecordOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines"
    monkeypatch.setenv(WRITE_TO, str(lines))
    key = key_of_another_day()
    assert record_of({key: [1, 2]}).resolve(key, "kernel", lambda: [3]) == [3]
    assert json.loads(lines.read_text()) == [key, [3]]


def test_every_known_kernel_has_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LARES_COMPILE_ANEW", raising=False)
    monkeypatch.delenv(WRITE_TO, raising=False)
    assert sum(is_compiled_anew(f"{number:024x}") for number in range(32)) == 2
