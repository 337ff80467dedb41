"""Settings of the CUDA kernels: what files may say, and what plans come of it. No library is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lares_kernels import CoreConfig
from lares_kernels.binding.cuda_library import Card
from lares_kernels.cuda.plan import LaunchPlan, carveout, launch_plan, shapes_of
from lares_kernels.cuda.settings import (
    ENVIRONMENT_VARIABLE,
    SHIPPED,
    Settings,
    family_of,
    file_name,
    files_of_settings,
    settings,
    use_settings,
    write_settings,
)

H200 = Card(132, 232448, (9, 0))
OTHERS = Settings("streamed", "streamed", True, True, 12, True, True, True)
Given = Callable[[Any], Path]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Given]:
    """Write what sm90's file holds, and name its folder."""

    def write(content: Any) -> Path:
        path = tmp_path / file_name("sm90")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
        settings.cache_clear()
        return path

    yield write
    monkeypatch.undo()
    settings.cache_clear()


def test_nothing_given_is_as_shipped() -> None:
    shipped = Settings("resident", "resident", False, False, 16, False, False, False)
    assert settings("sm90") == SHIPPED == shipped
    assert files_of_settings() == []


@pytest.mark.parametrize("those", [SHIPPED, OTHERS, replace(SHIPPED, product_warps=1)])
def test_what_is_written_is_read(those: Settings, given: Given) -> None:
    path = given({})
    write_settings(path, those)
    settings.cache_clear()
    assert settings("sm90") == those
    assert settings("sm80") == SHIPPED  # has no file there
    assert files_of_settings() == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not readable JSON"),
        ([], "does not hold an object"),
        ({"products_ahed": True}, "has a field 'products_ahed'; there are forward_weights, "),
        ({"forward_weights": "global"}, 'is \'global\'; it must be "resident" or "streamed"'),
        ({"backward_weights": True}, "backward_weights is True; it must be "),
        ({"backward_weights": []}, r"backward_weights is \[\]; it must be "),
        ({"products_ahead": 1}, "products_ahead is 1; it must be true or false"),
        ({"sides_transposed": "no"}, "sides_transposed is 'no'"),
        ({"product_warps": 0}, "product_warps is 0; it must be a whole number from 1 to 64"),
        ({"product_warps": 65}, "product_warps is 65"),
        ({"product_warps": 8.0}, "product_warps is 8.0"),
        ({"product_warps": True}, "product_warps is True"),
        ({"largest_cache": None}, "largest_cache is None"),
        ({"forward_staged": "staged"}, "forward_staged is 'staged'; it must be true or false"),
    ],
)
def test_what_cannot_be(content: Any, message: str, given: Given) -> None:
    path = given(content)
    with pytest.raises(ValueError, match=message) as caught:
        settings("sm90")
    assert str(path) in str(caught.value)


def test_a_folder_that_is_not_there(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    given({})
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "nowhere")
    with pytest.raises(ValueError, match="LARES_CUDA_SETTINGS is 'nowhere'; there is no such"):
        settings("sm90")


def test_within_a_block(given: Given) -> None:
    given({"product_warps": 8})
    with use_settings("sm90", OTHERS):
        assert settings("sm90") == OTHERS
        with use_settings("sm90", SHIPPED):
            assert settings("sm90") == SHIPPED
        assert settings("sm90") == OTHERS
        assert settings("sm80") == SHIPPED
    assert settings("sm90").product_warps == 8


def test_families() -> None:
    found = [family_of(replace_capability(H200, c)) for c in ((8, 0), (8, 9), (9, 0), (10, 3))]
    assert found == ["sm80", "sm80", "sm90", "sm100"]


def replace_capability(card: Card, capability: tuple[int, int]) -> Card:
    return card._replace(capability=capability)


@pytest.mark.parametrize("backward", [False, True])
def test_weights_are_where_they_are_preferred_if_that_can_be(backward: bool) -> None:
    def resident(width: int, those: Settings) -> bool:
        shapes = shapes_of(CoreConfig(d_model=width, n_heads=2, d_ff=4 * width))
        found = launch_plan(shapes, 20, True, H200, backward, those)
        assert isinstance(found, LaunchPlan), found
        assert found.shared_bytes <= H200.shared_limit
        return found.resident

    streams = {"backward_weights" if backward else "forward_weights": "streamed"}
    for_other = {"forward_weights" if backward else "backward_weights": "streamed"}
    assert resident(64, SHIPPED)
    assert resident(64, Settings(**for_other))
    assert not resident(64, Settings(**streams))
    assert resident(32, Settings(**streams))  # the only way
    assert not resident(128, SHIPPED)


@pytest.mark.parametrize("shared", [0, 13_000, 131_071, 232_448])
def test_a_block_has_what_it_takes(shared: int) -> None:
    """A block has 1 KB beside what it asks for; the runtime takes whole hundredths."""
    found = carveout(shared, H200)
    assert found in range(1, 101)
    assert found * (232_448 + 1024) >= 100 * (shared + 1024) > (found - 1) * (232_448 + 1024)
