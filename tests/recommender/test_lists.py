"""Lists: whose, of which items, with which scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from lares import Recommender
from lares.errors import ConfigError, DataError, NotAListError
from lares.recommender import ranked, recommender
from tests.recommender.helpers import histories, lists, rows

ITEMS = range(1, 26)


def scores_of(rec: Recommender, history: list[int]) -> np.ndarray:
    """What the model gives every item after a history, by row; item ``i`` is in row ``i`` here."""
    recent = history[-rec.model.config.max_length :]
    with torch.no_grad():
        scores = rec.model.scores(torch.tensor([recent]), torch.tensor([len(recent)]), seed=2025)
    return scores[0].numpy()


def best(rec: Recommender, history: list[int], among: list[int], k: int) -> list[int]:
    scores = scores_of(rec, history)
    return sorted(among, key=lambda item: (-scores[item], item))[:k]


def test_whole_histories_count_and_seen_items_are_left_out(
    table: pa.Table, fitted: Recommender
) -> None:
    whole = histories(table)
    found = lists(fitted.recommend(k=5))
    assert list(found) == sorted(whole)
    for user, history in whole.items():
        assert found[user] == best(fitted, history, sorted({*ITEMS} - {*history}), 5), user
    assert fitted.recommend(k=5).equals(fitted.recommend(histories=whole, k=5))
    kept = lists(fitted.recommend(k=5, remove_history=False))
    assert all(kept[user] == best(fitted, whole[user], [*ITEMS], 5) for user in whole)


def test_scores_are_the_models_and_ranks_count_from_one(
    table: pa.Table, fitted: Recommender
) -> None:
    whole = histories(table)
    found = rows(fitted.recommend([3, 1], k=4))
    assert [row["user"] for row in found] == [3] * 4 + [1] * 4
    assert [row["rank"] for row in found] == [1, 2, 3, 4] * 2
    for row in found:
        scores = scores_of(fitted, whole[row["user"]])
        assert row["score"] == pytest.approx(scores[row["item"]], abs=1e-5)
    for user in (3, 1):
        assert (
            lists(fitted.recommend([user], k=4))[user]
            == fitted.model.recommend([whole[user]], k=4)[0]
        )


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_and_seed(depth: int, table: pa.Table, fitted: Recommender) -> None:
    history = histories(table)[5]
    found = lists(fitted.recommend([5], k=6, depth=depth, seed=7))[5]
    assert found == fitted.model.recommend([history], k=6, num_steps=depth, seed=7)[0]


CHOICES: dict[str, tuple[dict[str, Any], Callable[[int], set[int]]]] = {
    "exclude": ({"exclude": [2, 4, 4]}, lambda user: {*ITEMS} - {2, 4}),
    "exclude of a user": (
        {"exclude": {3: [5, 6, 7], 9: []}},
        lambda user: {*ITEMS} - ({5, 6, 7} if user == 3 else set()),
    ),
    "only": ({"only": [9, 3, 5, 20]}, lambda user: {3, 5, 9, 20}),
    "only of each": (
        {"only": {1: [3, 5], 2: [], 3: [*ITEMS]}},
        lambda user: [{3, 5}, set(), {*ITEMS}][user - 1],
    ),
    "both": ({"only": [9, 3, 5, 20], "exclude": [3, 1]}, lambda user: {5, 9, 20}),
    "only all, exclude each": (
        {"only": [9, 3, 5, 20], "exclude": {1: [3, 1]}},
        lambda user: {5, 9, 20} if user == 1 else {3, 5, 9, 20},
    ),
    "only each, exclude all": (
        {"only": {1: [3, 5], 2: [], 3: [*ITEMS]}, "exclude": [5, 6]},
        lambda user: [{3}, set(), {*ITEMS} - {5, 6}][user - 1],
    ),
    "both of each": (
        {"only": {1: [3, 5], 2: [8], 3: [*ITEMS]}, "exclude": {1: [5], 3: [6]}},
        lambda user: [{3}, {8}, {*ITEMS} - {6}][user - 1],
    ),
    "nothing": ({"only": []}, lambda user: set()),
    "nothing left": ({"exclude": [*ITEMS]}, lambda user: set()),
}


@pytest.mark.parametrize("remove_history", [True, False])
@pytest.mark.parametrize("choice", CHOICES)
def test_exclusions_and_candidates(
    choice: str, remove_history: bool, table: pa.Table, fitted: Recommender
) -> None:
    options, allowed = CHOICES[choice]
    whole = histories(table)
    found = lists(fitted.recommend([1, 2, 3], k=8, remove_history=remove_history, **options))
    for user in (1, 2, 3):
        among = allowed(user) - ({*whole[user]} if remove_history else set())
        assert found.get(user, []) == best(fitted, whole[user], sorted(among), 8), user


def test_exclusions_of_histories(fitted: Recommender) -> None:
    """Whose histories are given are called by key, or by number."""
    given = {"anna": [1, 2], "bo": [4]}
    plain = lists(fitted.recommend(histories=given, k=3))
    found = lists(
        fitted.recommend(histories=given, k=2, exclude={"anna": plain["anna"][:1], "bo": []})
    )
    assert found == {"anna": plain["anna"][1:], "bo": plain["bo"][:2]}
    numbered = lists(fitted.recommend(histories=[[1, 2], [4]], k=2, only={0: [7], 1: [8]}))
    assert numbered == {0: [7], 1: [8]}


def test_lists_do_not_depend_on_the_batch(
    fitted: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"exclude": {user: [user % 25 + 1] for user in range(1, 61)}, "k": 7}
    whole, similar = fitted.recommend(**options), fitted.similar_items([*ITEMS])
    monkeypatch.setattr(ranked, "BATCH", 7)
    monkeypatch.setattr(recommender, "BATCH", 7)
    assert rows(fitted.recommend(**options)) == rows(whole)
    assert rows(fitted.similar_items([*ITEMS])) == rows(similar)


@pytest.mark.parametrize(
    "make",
    [list, tuple, np.array, pa.array, torch.tensor, lambda users: pa.chunked_array([users])],
    ids=["list", "tuple", "numpy", "arrow", "torch", "chunked"],
)
def test_users_and_items_come_in_any_list(make: Any, fitted: Recommender) -> None:
    expected = rows(fitted.recommend([2, 1], k=2, exclude=[3]))
    assert rows(fitted.recommend(make([2, 1]), k=2, exclude=make([3]))) == expected
    again = rows(fitted.recommend(histories=[make([2, 1])], k=2))
    assert again == rows(fitted.recommend(histories=[[2, 1]], k=2))


def test_users_and_items_come_in_columns(fitted: Recommender) -> None:
    expected = rows(fitted.recommend([2, 1], k=2, exclude=[3]))
    for library in ("pandas", "polars"):
        series = pytest.importorskip(library).Series
        found = fitted.recommend(series([2, 1]), k=2, exclude=series([3]))
        assert rows(found) == expected
        given = {"a": series([1, 2])}
        assert lists(fitted.recommend(histories=given, k=1)) == lists(
            fitted.recommend(histories={"a": [1, 2]}, k=1)
        )


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"users": [1, 99]}, DataError, "user 99 is unknown: the data have 60 users, such as 1"),
    (
        {"users": [91, 92, 93, 94]},
        DataError,
        "users 91, 92, 93 and 1 other are unknown",
    ),
    ({"users": ["x"]}, DataError, "user 'x' is unknown"),
    ({"users": 1}, NotAListError, "users is 1; it must be a list of user ids"),
    ({"users": "12"}, NotAListError, "users is '12'; it must be a list"),
    ({"users": [1], "histories": [[1]]}, ConfigError, "give users or histories, one of them"),
    ({"histories": {"a": [1, 99]}}, DataError, "history of 'a', position 1: item 99 is unknown"),
    ({"histories": [[1], [99]]}, DataError, "history 1, position 0: item 99 is unknown"),
    ({"histories": {"a": []}}, DataError, "the history of 'a' is empty"),
    ({"histories": [1]}, NotAListError, "history 0 is 1; it must be a list of item ids"),
    ({"histories": [[1.5]]}, DataError, "item 1.5 in history 0, position 0 is a float"),
    ({"histories": {1.5: [1]}}, DataError, "keys of histories: id 1.5 is neither"),
    ({"exclude": [1, 99]}, DataError, "exclude, position 1: item 99 is unknown"),
    ({"exclude": {1: [99]}}, DataError, "exclude of 1, position 0: item 99 is unknown"),
    ({"exclude": {77: [1]}}, DataError, "exclude has a list for 77, and there is no such user"),
    ({"only": ["x"]}, DataError, "only, position 0: item 'x' is unknown"),
    ({"users": [1, 2], "only": {1: [1]}}, DataError, "only has no list for 2; give one"),
    (
        {"histories": {"a": [1]}, "exclude": {"b": [1]}},
        DataError,
        "exclude has a list for 'b', and there is no such user",
    ),
    ({"k": 0}, ConfigError, "k is 0; it must be a whole number in 1..25"),
    ({"k": 26}, ConfigError, "k is 26; it must be a whole number in 1..25"),
    ({"depth": 0}, ConfigError, "depth is 0; it must be a whole number in 1.."),
    ({"seed": -1}, ConfigError, "seed is -1"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_unknown_or_wrong_is_named(
    options: dict[str, Any], kind: type[Exception], message: str, fitted: Recommender
) -> None:
    with pytest.raises(kind, match=message):
        fitted.recommend(**options)


def test_nobody_asks(fitted: Recommender) -> None:
    for found in (fitted.recommend([]), fitted.recommend(histories=[])):
        assert found.num_rows == 0
        assert found.column_names == ["user", "item", "score", "rank"]
    assert fitted.similar_items([]).num_rows == 0


def test_similar_items(fitted: Recommender) -> None:
    found = rows(fitted.similar_items([4, 2], k=3))
    embeddings = torch.nn.functional.normalize(fitted.model.items.detach()[1:], dim=-1)
    cosines = (embeddings @ embeddings.T).numpy()
    for place, item in enumerate((4, 2)):
        of_item = found[3 * place : 3 * place + 3]
        others = sorted({*ITEMS} - {item}, key=lambda other: -cosines[item - 1, other - 1])
        assert [row["item"] for row in of_item] == others[:3]
        assert [row["rank"] for row in of_item] == [1, 2, 3]
        assert {row["similar_to"] for row in of_item} == {item}
        for row in of_item:
            assert row["score"] == pytest.approx(cosines[item - 1, row["item"] - 1], abs=1e-5)
    with pytest.raises(DataError, match="item 99 is unknown"):
        fitted.similar_items([99])
    with pytest.raises(ConfigError, match=r"k is 25; it must be a whole number in 1..24"):
        fitted.similar_items([1], k=25)


def test_evaluation_is_that_of_the_run(table: pa.Table, fitted: Recommender) -> None:
    assert fitted.result is not None
    assert fitted.evaluate() == fitted.result.test
    assert fitted.evaluate(table) == fitted.result.test
    some = fitted.evaluate(table.slice(0, 200), depths=[2], ks=[3], remove_history=True)
    assert list(some) == [2]
    assert set(some[2]) == {"recall@3", "ndcg@3"}
    assert fitted.evaluate(split="valid", states="drawn", depths=[4])[4] != fitted.result.test[4]
    with pytest.raises(ConfigError, match="split is 'train'; it must be one of valid, test"):
        fitted.evaluate(split="train")
    with pytest.raises(ConfigError, match="depths are"):
        fitted.evaluate(depths=[0])
    other = {"user_id": [1] * 5, "item_id": [1, 2, 3, 4, 99]}
    with pytest.raises(DataError, match="the dict: item 99 is unknown"):
        fitted.evaluate(other)
