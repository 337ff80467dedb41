"""Plots of accuracy are of one run of each model, and say what they leave out."""

from __future__ import annotations

import pytest

from benchmarks.report.accuracy import MODELS, SETS, of_models, plot_depth, plot_seconds, read


def test_every_model_has_rows_of_some_set_and_every_set_its_own() -> None:
    epochs, tests = read("shared_epochs.csv"), read("shared.csv")
    drawn = {data: [model.name for model, _ in of_models(epochs, data)] for data in SETS}
    assert {name for names in drawn.values() for name in names} == {model.name for model in MODELS}
    for data, names in drawn.items():
        assert names[:4] == [model.name for model in MODELS[:4]], data
        assert names == [model.name for model, _ in of_models(tests, data)], data


def test_the_best_so_far_never_falls() -> None:
    (axes,) = plot_seconds(read("shared_epochs.csv"), "scientific18").axes
    assert len(axes.lines) == 5
    for line in axes.lines:
        best = [*line.get_ydata()]
        assert best == sorted(best)


def test_rows_of_two_runs_are_refused() -> None:
    rows = [row for row in read("shared_epochs.csv") if row["options"] == "--recipe shared"]
    with pytest.raises(ValueError, match="beauty14, LARES, shared: rows of more than one run"):
        plot_seconds([*rows, *rows], "beauty14")


def test_a_model_without_a_depth_is_a_level_line() -> None:
    (axes,) = plot_depth(read("shared.csv"), "beauty14").axes
    levels = [line.get_label() for line in axes.lines if len({*line.get_ydata()}) == 1]
    assert levels == ["SASRec, 2 layers", "the same, aligned"]
