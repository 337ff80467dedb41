"""Models and runs that earlier revisions saved load, recommend, evaluate and go on: see README.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lares import LaresModel
from lares.cli import main
from lares.training.loggers import read_rows
from lares.training.trained import load_trained
from tests.saved.scores import scores_of

HERE = Path(__file__).parent
MODELS = (
    "attention_add_double",
    "attention_concat",
    "attention_concat_seeded",
    "attention_gate_cosine",
    "bsarec",
    "fmlp",
    "sasrec",
    "text",
)
RUNS = (
    "posttrain_prefixes",
    "posttrain_users",
    "posttrain_users_cross_entropy",
    "train_prefixes",
    "train_text",
    "train_users",
)
FOLDERS = [*(f"models/{name}" for name in MODELS), *(f"runs/{name}" for name in RUNS)]

# The CPU kernel's instruction sets and both reference programs differ by a tenth of these, or less.
SCORE_TOLERANCE = 2e-5  # share of the scores' spread
LOSS_TOLERANCE = 1e-5  # relative, after epochs of training
# While a run goes on rounding may let two items of one evaluated sample, of at least 50, change places.
METRIC_TOLERANCE = 1 / 50


def expected_of(folder: str) -> dict[str, Any]:
    text = (HERE / f"{folder}.expected.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def part_of(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """What ``expected`` names: metrics and columns may be added to."""
    return {name: found[name] for name in expected}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the data where the runs look for them."""
    shutil.copytree(HERE / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def test_every_fixture_is_tested() -> None:
    for kind, names in (("models", MODELS), ("runs", RUNS)):
        found = sorted(path.name for path in (HERE / kind).iterdir() if path.is_dir())
        assert found == [*names]


@pytest.mark.parametrize("folder", FOLDERS)
def test_loads_and_recommends(folder: str) -> None:
    expected = expected_of(folder)
    model, vocabulary, _ = load_trained(HERE / folder)
    if folder.startswith("runs/"):
        assert vocabulary is not None
        model = LaresModel.from_pretrained(HERE / folder / "best")
    encode, decode = (vocabulary.encode, vocabulary.decode) if vocabulary else (list, list)
    rows = [list(encode(history)) for history in expected["histories"]]
    found = scores_of(model, rows, expected["seed"])
    scores = torch.tensor(expected["scores"], dtype=found.dtype)
    tolerance = SCORE_TOLERANCE * float(scores.std())
    torch.testing.assert_close(found, scores, rtol=0.0, atol=tolerance)
    for asked in expected["recommend"]:
        options = {"k": expected["k"], "seed": expected["seed"], "num_steps": asked["depth"]}
        # They were stored when each history had a stream of its own.
        best = model.recommend_rows(rows, **options, sequence_ids=range(len(rows)))
        assert [decode(items) for items in best] == asked["items"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_recommends_on_the_command_line(folder: str, place: Path, capsys) -> None:
    """As stored where a list was drawn from the first stream, which is everybody's, or from none."""
    expected = expected_of(folder)
    config = load_trained(HERE / folder).model.config
    draws = config.is_recurrent and config.state_mode == "normal"
    histories = [",".join(map(str, history)) for history in expected["histories"]]
    (place / "histories.txt").write_text("\n".join(histories), encoding="utf-8")
    arguments = [str(HERE / folder), "--histories=histories.txt", "--device=cpu"]
    arguments += [f"--k={expected['k']}", f"--seed={expected['seed']}"]
    for asked in expected["recommend"]:
        depth = [] if asked["depth"] is None else [f"--depth={asked['depth']}"]
        main(["recommend", *arguments, *depth])
        found = capsys.readouterr().out.splitlines()
        stored = [",".join(map(str, items)) for items in asked["items"]]
        assert len(found) == len(stored)
        assert found[0] == stored[0]
        if not draws:
            assert found == stored


def test_takes_the_seed_that_it_was_saved_with(place: Path, capsys) -> None:
    """Without being asked to; and one that was saved before there were seeds has 0."""
    folder = "models/attention_concat_seeded"
    expected = expected_of(folder)
    model = LaresModel.from_pretrained(HERE / folder)
    assert (model.seed, expected["seed"]) == (7, 7)
    assert LaresModel.from_pretrained(HERE / "models/attention_concat").seed == 0
    assert LaresModel.from_pretrained(HERE / "runs/train_prefixes").seed == 2025  # the run's
    asked, k = expected["histories"][0], expected["k"]
    stored = expected["recommend"][0]["items"][0]
    assert model.recommend([asked], k) == [stored]
    main(["recommend", str(HERE / folder), f"--history={','.join(map(str, asked))}", f"--k={k}"])
    assert capsys.readouterr().out == ",".join(map(str, stored)) + "\n"


@pytest.mark.parametrize("folder", FOLDERS)
def test_evaluates(folder: str, place: Path) -> None:
    expected = expected_of(folder)
    depths = ",".join(expected["evaluate"])
    arguments = [f"--depths={depths}", f"--seed={expected['evaluation_seed']}"]
    arguments += ["--states=drawn", "--device=cpu", "--output=found.json"]
    main(["evaluate", str(HERE / folder), expected["data"], *arguments])
    found = json.loads((place / "found.json").read_text(encoding="utf-8"))
    assert found.keys() == expected["evaluate"].keys()
    for depth, metrics in expected["evaluate"].items():
        assert part_of(found[depth], metrics) == pytest.approx(metrics, rel=1e-9), f"depth {depth}"


@pytest.mark.parametrize("name", RUNS)
def test_goes_on(name: str, place: Path) -> None:
    """To what it would have come to had it never stopped; what it had logged stays as it was."""
    expected, run = expected_of(f"runs/{name}"), place / "runs" / name
    shutil.copytree(HERE / "runs" / name, run)
    before = read_rows(run / "metrics.csv")
    command = name.split("_")[0]
    main([command, f"--out=runs/{name}", "--resume", "--no_progress", *expected["resume"]])
    assert (run / "curves.png").is_file()
    outcome, rows = expected["outcome"], read_rows(run / "metrics.csv")
    assert [part_of(row, old) for row, old in zip(rows, before, strict=False)] == before
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in outcome["metrics"]]
    for row, wanted in zip(rows, outcome["metrics"], strict=True):
        assert_same_row(row, wanted)
    result, wanted = json.loads((run / "result.json").read_text()), outcome["result"]
    assert (result["epochs"], result["best_epoch"]) == (wanted["epochs"], wanted["best_epoch"])
    assert result["valid_best"] == pytest.approx(wanted["valid_best"], abs=METRIC_TOLERANCE)
    for part in ("test", "start"):
        assert result[part].keys() == wanted[part].keys()
        for depth, metrics in wanted[part].items():
            found = part_of(result[part][depth], metrics)
            assert found == pytest.approx(metrics, abs=METRIC_TOLERANCE)


def assert_same_row(row: dict[str, str], expected: dict[str, str]) -> None:
    """A row of ``metrics.csv`` has in the columns expected the numbers expected, or none."""
    for name, value in expected.items():
        where = f"{name} of epoch {expected['epoch']}"
        if value == "":
            assert row[name] == "", where
        elif name.startswith("valid_"):
            assert float(row[name]) == pytest.approx(float(value), abs=METRIC_TOLERANCE), where
        else:
            wanted = pytest.approx(float(value), rel=LOSS_TOLERANCE, abs=1e-8)
            assert float(row[name]) == wanted, where
