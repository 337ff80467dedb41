"""Which items a model speaks of: raw ids where it was given them, rows where it was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lares import LaresConfig, LaresModel
from lares.data.vocabulary import Vocabulary
from lares.errors import CheckpointError, ConfigError, DataError
from lares.model.folders import RUN_CONFIG_FILE

NUMBERS = np.arange(5, 65, 3)
NAMES = np.array([f"Duo {number:02d}, Live" for number in range(20)])


def make(ids: Any, **options: Any) -> LaresModel:
    torch.manual_seed(1)
    vocabulary = None if ids is None else Vocabulary(ids)
    config = LaresConfig(n_items=21, max_length=5, d_model=16, d_ff=24, **options)
    return LaresModel(config, vocabulary=vocabulary).eval()


@pytest.mark.parametrize(
    ("ids", "history"),
    [
        (NUMBERS, [5, 8, 11]),
        (NUMBERS, ["5", "8", "11"]),
        (NUMBERS, np.array([5, 8, 11], dtype=np.int32)),
        (NUMBERS, torch.tensor([5, 8, 11])),
        (NAMES, ["Duo 00, Live", "Duo 01, Live", "Duo 02, Live"]),
        (NAMES, NAMES[:3]),
        (None, [1, 2, 3]),
        (None, np.array([1, 2, 3])),
    ],
    ids=["numbers", "digits", "numpy", "torch", "names", "numpy names", "rows", "numpy rows"],
)
def test_recommend_takes_and_gives_raw_ids(ids: Any, history: Any) -> None:
    model = make(ids)
    rows = model.recommend_rows([[1, 2, 3]], 6)[0]
    (found,) = model.recommend([history], 6)
    assert found == (rows if ids is None else [ids[row - 1] for row in rows])
    assert type(found[0]) is (str if ids is NAMES else int)


@pytest.mark.parametrize("ids", [NUMBERS, NAMES, None], ids=["numbers", "names", "rows"])
def test_a_saved_copy_speaks_the_same(ids: Any, tmp_path: Path) -> None:
    model = make(ids)
    model.save_pretrained(tmp_path / "one")
    again = LaresModel.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RUN_CONFIG_FILE).touch()
    shutil.copytree(tmp_path / "two", tmp_path / "run" / "best")
    history = [[1, 2]] if ids is None else [ids[:2].tolist()]
    expected = model.recommend(history, 5)
    for place in ("one", "two", "run"):
        assert LaresModel.from_pretrained(tmp_path / place).recommend(history, 5) == expected


@pytest.mark.parametrize(
    ("ids", "item", "message"),
    [
        (NUMBERS, 6, "history 1, position 2: item 6 is unknown to this catalogue of 20 items"),
        (NUMBERS, "x", "history 1, position 2: item 'x' is unknown"),
        (NUMBERS, "²", "history 1, position 2: item '²' is unknown"),
        (NUMBERS, 10**20, "history 1, position 2: item 100000000000000000000 is unknown"),
        (NUMBERS, -(2**63) - 1, "history 1, position 2: item -9223372036854775809 is unknown"),
        (NAMES, "Duo 99", "history 1, position 2: item 'Duo 99' is unknown"),
        (None, 21, "item id 21 in history 1, position 2: ids run from 1 to 20"),
        (None, "3", "item id '3' in history 1, position 2: ids are whole numbers here"),
    ],
)
def test_unknown_items_have_a_place(ids: Any, item: Any, message: str) -> None:
    known = 1 if ids is None else ids[0].item()
    with pytest.raises(ValueError) as caught:
        make(ids).recommend([[known], [known, known, item]])
    assert message in str(caught.value)


@pytest.mark.parametrize("ids", [NUMBERS, NAMES, None], ids=["numbers", "names", "rows"])
@pytest.mark.parametrize(
    "item",
    [5.0, float("nan"), np.float64(5.0), np.float32(5.0), torch.tensor(5.0), True, np.bool_(True)]
    + [torch.tensor(True), None, b"5", (5,), 5 + 0j],
    ids=repr,
)
def test_what_is_no_id_is_refused(ids: Any, item: Any) -> None:
    model = make(ids)
    known = 1 if ids is None else ids[0].item()
    for ask in (model.recommend, model.recommend_rows):
        with pytest.raises(DataError) as caught:
            ask([[1] if ask == model.recommend_rows else [known], [item]])
        assert "history 1, position 0" in str(caught.value)
        assert repr(item) in str(caught.value)


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([[5], []], "history 1 is empty"),
        ([5, 8], "history 0 is 5; it must be a list"),
        (["58"], "history 0 is '58'; it must be a list"),
        ([[5], None], "history 1 is None"),
        (np.array([[5.0, 8.0]]), "history 0, position 0 is a float64"),
        (torch.tensor([[5.0]]), "history 0, position 0"),
    ],
)
def test_what_is_no_history_is_refused(histories: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        make(NUMBERS).recommend(histories)
    assert message in str(caught.value)


@pytest.mark.parametrize("ids", [NUMBERS, None], ids=["numbers", "rows"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        (5.5, "5.5"),
        (None, "None"),
        ("58", "'58'"),
        (b"58", "b'58'"),
        (np.array(5), "array(5)"),
        (np.int64(5), "np.int64(5)"),
        (torch.tensor(5), "tensor(5)"),
    ],
    ids=repr,
)
def test_what_is_no_list_is_an_error_of_both_kinds(ids: Any, value: Any, shown: str) -> None:
    model = make(ids)
    calls = {
        f"histories is {shown}; it must be a list of histories, each a list of item ids": (
            lambda: model.recommend(value, 3),
            lambda: model.recommend_rows(value, 3),
        ),
        f"history 1 is {shown}; it must be a list of item ids": (
            lambda: model.recommend([[5], value], 3),
            lambda: model.recommend_rows([[5], value], 3),
        ),
        f"sequence_ids is {shown}; it must be a list of whole numbers, one a history": (
            lambda: model.recommend_rows([[5]], 3, sequence_ids=value),
        ),
    }
    for message, several in calls.items():
        for call in several:
            if value is None and "sequence_ids" in message:
                continue
            for kind in (DataError, TypeError):
                with pytest.raises(kind) as caught:
                    call()
                assert str(caught.value) == message


def test_an_error_within_a_list_of_histories_is_its_own() -> None:
    def histories():
        yield [5]
        raise TypeError("mine")

    with pytest.raises(TypeError, match="^mine$"):
        make(NUMBERS).recommend(histories(), 3)


def test_a_tensor_of_histories() -> None:
    model = make(NUMBERS)
    histories = [[5, 8], [11, 14]]
    assert model.recommend(torch.tensor(histories), 4) == model.recommend(histories, 4)
    assert model.recommend([], 4) == []


def test_the_vocabulary_fits_the_model() -> None:
    with pytest.raises(ConfigError, match="the vocabulary has 19 items; n_items=21"):
        make(NUMBERS[:19])


def test_a_model_says_which_ids_it_speaks() -> None:
    assert "ids: 1..20, the rows' numbers (no vocabulary)" in repr(make(None))
    assert "ids: 20 raw ones, 5 to 62" in repr(make(NUMBERS))
    assert "ids: 20 raw ones, 'Duo 00, Live' to 'Duo 19, Live'" in repr(make(NAMES))


def test_lost_items(tmp_path: Path) -> None:
    make(NUMBERS).save_pretrained(tmp_path)
    (tmp_path / "items.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"items\.json is missing: .* with 20 items"
    ) as caught:
        LaresModel.from_pretrained(tmp_path)
    assert "vocabulary=None" in str(caught.value)
    rows = LaresModel.from_pretrained(tmp_path, vocabulary=None)
    assert rows.recommend([[1]], 3) == rows.recommend_rows([[1]], 3)
    given = LaresModel.from_pretrained(tmp_path, vocabulary=Vocabulary(NUMBERS))
    assert given.recommend([[5]], 3) == make(NUMBERS).recommend([[5]], 3)
    with pytest.raises(CheckpointError, match="saved with other items"):
        LaresModel.from_pretrained(tmp_path, vocabulary=Vocabulary(NUMBERS + 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps((NUMBERS + 1).tolist()), "saved with other items"),
        (json.dumps([str(item) for item in NUMBERS]), r"saved with other items|no list of items"),
        (json.dumps(NUMBERS.tolist()[:-1]), "has 19 items, but the model beside it knows 20"),
        ("[5, 8", "not a readable list of items"),
        ("{}", "holds no list of items"),
        ("[5.5, 8]", "items"),
    ],
)
def test_items_of_another_model(tmp_path: Path, content: str, message: str) -> None:
    make(NUMBERS).save_pretrained(tmp_path)
    (tmp_path / "items.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        LaresModel.from_pretrained(tmp_path)


def test_saving_over_another_model_leaves_none_of_its_items(tmp_path: Path) -> None:
    make(NAMES).save_pretrained(tmp_path)
    make(None).save_pretrained(tmp_path)
    assert LaresModel.from_pretrained(tmp_path).vocabulary is None


def test_older_folders_have_their_items_beside_them(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = make(NUMBERS)
    model.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors")  # as before there were marks
    again = LaresModel.from_pretrained(tmp_path)
    assert again.recommend([[5, 8]], 4) == model.recommend([[5, 8]], 4)
    (tmp_path / "items.json").unlink()
    assert LaresModel.from_pretrained(tmp_path).vocabulary is None
