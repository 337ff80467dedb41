"""``lares evaluate``: by default what the run says of itself, and where it may write."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lares import LaresModel
from lares.cli import evaluate as command
from lares.cli import main
from lares.data import load_dataset
from lares.errors import DataError
from lares.evaluation import per_user
from lares.training.spt import train
from tests.cli import failing
from tests.model.test_same_list import without_seed
from tests.training.helpers import small_config


@pytest.fixture(scope="module")
def run(interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a seed of its own, and another ranking than the usual one."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    options = {"seed": 7, "remove_history": True, "max_epochs": 2}
    train(small_config(interactions, trainer=options), folder, progress=False)
    return folder


def metrics(run: Path, data: Path, *options: str) -> dict[str, dict[str, float]]:
    output = run.parent / "metrics.json"
    main(["evaluate", str(run), str(data), "--depths=1,4", "--output", str(output), *options])
    found: dict[str, dict[str, float]] = json.loads(output.read_text())
    return {depth: usual(of_depth) for depth, of_depth in found.items()}


def usual(found: dict[str, float]) -> dict[str, float]:
    """Recall and NDCG, which a run's result has, too."""
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("recall@", "ndcg@")) and not name.endswith("_error")
    }


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that the command prints."""
    return failing.fails(capsys, "evaluate", *argv)


def test_the_result_of_a_run_is_what_evaluate_says(interactions: Path, run: Path, capsys) -> None:
    result = json.loads((run / "result.json").read_text())["test"]
    assert metrics(run, interactions) == result
    assert metrics(run, interactions, "--batch_size=7") == result
    told = capsys.readouterr().out
    assert "one initial state for all, their history left out of the ranking" in told
    assert metrics(run, interactions, "--states=drawn") != result
    assert "an initial state for each" in capsys.readouterr().out
    assert metrics(run, interactions, "--seed=8") != result
    assert metrics(run, interactions, "--keep_history") != result
    error = fails(capsys, str(run), str(interactions), "--keep_history", "--remove_history")
    assert "opposites" in error
    assert "--states is 'mine'" in fails(capsys, str(run), str(interactions), "--states=mine")
    assert "--unknown is 'x'" in fails(capsys, str(run), str(interactions), "--unknown=x")


KS = (1, 2, 4, 7, 10)


def measured(place: Path, data: Path, capsys, *options: str) -> list[float]:
    """NDCG of the test samples, as evaluate says it; its recall is that of the lists of recommend."""
    output, file = place.parent / "one.json", place.parent / "histories.csv"
    shared = [*options, "--device=cpu"]
    main(
        ["evaluate", str(place), str(data), "--depths=4", "--keep_history", *shared]
        + [f"--ks={','.join(map(str, KS))}", f"--output={output}"]
    )
    dataset = load_dataset(data)
    test, ids = dataset.test, dataset.vocabulary.decode
    rows = [ids(test.items[a:b].tolist()) for a, b in zip(test.starts, test.ends, strict=True)]
    targets = ids(test.items[test.ends].tolist())
    file.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    capsys.readouterr()
    main(["recommend", str(place), f"--histories={file}", "--k=10", "--keep_history", *shared])
    lists = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    hits = [
        [str(target) in found[:k] for found, target in zip(lists, targets, strict=True)] for k in KS
    ]
    said = json.loads(output.read_text())["4"]
    assert [said[f"recall@{k}"] for k in KS] == pytest.approx([np.mean(each) for each in hits])
    return [said[f"ndcg@{k}"] for k in KS]


def test_recommend_gives_what_evaluate_counts(
    interactions: Path, run: Path, tmp_path: Path, capsys
) -> None:
    """Of a run, of its model, of a copy, with another seed, and of a run older than models' seeds."""
    wanted = measured(run, interactions, capsys)
    assert measured(run, interactions, capsys, "--seed=8") != wanted
    LaresModel.from_pretrained(run).save_pretrained(tmp_path / "copy")
    shutil.copytree(run, tmp_path / "old")
    without_seed(tmp_path / "old" / "best")
    for place in (run / "best", tmp_path / "copy", tmp_path / "old"):
        assert measured(place, interactions, capsys) == wanted


def test_without_data_a_run_has_its_own(
    interactions: Path, run: Path, tmp_path: Path, capsys
) -> None:
    """As its options say that they were read."""
    wanted = measured(run, interactions, capsys)
    asked = ["--depths=4", "--keep_history", f"--ks={','.join(map(str, KS))}"]
    output = tmp_path / "found.json"
    for arguments in ([str(run), *asked], [*asked, str(run)]):
        main(["evaluate", *arguments, f"--output={output}"])
        found = json.loads(output.read_text())["4"]
        assert [found[f"ndcg@{k}"] for k in KS] == wanted
        assert "test: " in capsys.readouterr().out
    for arguments in (
        [str(run), "--depths", "1", str(interactions)],
        ["--depths", "1", str(run), str(interactions)],
        ["--keep_history", str(run), "--depths=1", str(interactions)],
    ):
        main(["evaluate", *arguments])
    assert "unexpected argument" in fails(capsys, str(run), str(interactions), "more")


def test_a_column_named_for_own_data_is_read(tmp_path: Path, run: Path, capsys) -> None:
    films = "".join(f"{u},{(u + i) % 20},{i}\n" for u in range(30) for i in range(6))
    (tmp_path / "films.csv").write_text("who,item_id,timestamp\n" + films)
    config = small_config(
        tmp_path / "films.csv", data={"user_column": "who"}, trainer={"max_epochs": 1}
    )
    train(config, tmp_path / "run", progress=False)
    main(["evaluate", str(tmp_path / "run"), "--depths=1"])
    assert "test: 30 samples" in capsys.readouterr().out
    error = fails(capsys, str(tmp_path / "run"), "--data.user_column=whose")
    assert "whose" in error


def test_own_data_that_cannot_be_found(
    interactions: Path, run: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    for path in ("gone.parquet", str(tmp_path / "gone")):
        config.write_text(
            "".join(
                f"  path: {path}\n" if line.startswith("  path: ") else line
                for line in config.read_text().splitlines(keepends=True)
            )
        )
        error = fails(capsys, str(tmp_path / "run"))
        assert f"{tmp_path / 'run'} was trained on {path}, which is not there" in error
        assert "give DATA" in error
        assert ("seen from the folder" in error) == (path == "gone.parquet")
        main(["evaluate", str(tmp_path / "run"), str(interactions), "--depths=1"])
        capsys.readouterr()
    shutil.copy(interactions, tmp_path / "walks.parquet")
    monkeypatch.chdir(tmp_path)
    config.write_text(config.read_text().replace(str(tmp_path / "gone"), "walks.parquet"))
    main(["evaluate", "run", "--depths=1"])
    assert "test: " in capsys.readouterr().out
    error = fails(capsys, str(run / "best"))
    assert f"no data: {run / 'best'} is no run, whose data would be taken; give DATA" in error


def test_errors_stand_beside_means_and_metrics_can_be_chosen(
    interactions: Path, run: Path, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "found.json"
    main(["evaluate", str(run), str(interactions), "--depths=4", f"--output={output}", "--ks=3"])
    found = json.loads(output.read_text())["4"]
    means = [f"{name}@3" for name in ("recall", "ndcg", "mrr", "repeats")]
    assert set(found) == {"coverage@3", *means, *(f"{name}_error" for name in means)}
    n, recall = 60, found["recall@3"]
    assert found["recall@3_error"] == pytest.approx((recall * (1 - recall) / (n - 1)) ** 0.5)
    assert found["repeats@3"] == 0.0  # the run leaves histories out
    told = capsys.readouterr().out
    assert "standard errors of recall and ndcg, which are means over samples" in told
    assert "coverage is of all lists together, and has no standard error" in told
    main(["evaluate", str(run), "--depths=4", "--keep_history", "--metrics=repeats", "--ks=3"])
    told = capsys.readouterr().out
    assert "REPEATS@3" in told
    assert "RECALL" not in told
    assert "--metrics is 'map'" in fails(capsys, str(run), "--metrics=ndcg,map")


def rows_in(path: Path) -> list[dict[str, object]]:
    """Rows of a file of any form, numbers as such."""
    if path.suffix == ".parquet":
        rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_every_user_has_a_rank_at_each_depth(
    interactions: Path, run: Path, tmp_path: Path, suffix: str, monkeypatch
) -> None:
    monkeypatch.setattr(per_user, "_BATCH", 7)
    file, output = tmp_path / f"ranks.{suffix}", tmp_path / "found.json"
    main(
        ["evaluate", str(run), str(interactions), "--depths=1,4", "--ks=5"]
        + [f"--per_user={file}", f"--output={output}"]
    )
    rows = rows_in(file)
    assert list(rows[0]) == ["user", "target", "depth", "rank"]
    table = pq.read_table(interactions).to_pylist()
    last = {row["user_id"]: row["item_id"] for row in table}  # rows are in order
    assert [row["user"] for row in rows[::2]] == sorted(last)
    assert all(row["target"] == last[row["user"]] for row in rows)
    found = json.loads(output.read_text())
    for depth, of_depth in ((1, rows[::2]), (4, rows[1::2])):
        assert {row["depth"] for row in of_depth} == {depth}
        ranks = np.array([row["rank"] for row in of_depth])
        assert found[str(depth)]["recall@5"] == pytest.approx((ranks <= 5).mean())
        mrr = np.where(ranks <= 5, 1 / ranks, 0).mean()
        assert found[str(depth)]["mrr@5"] == pytest.approx(mrr)


def test_ranks_by_user_need_a_form_and_users(
    interactions: Path, run: Path, tmp_path: Path, capsys
) -> None:
    error = fails(capsys, str(run), f"--per_user={tmp_path / 'ranks.txt'}")
    assert "it must end in one of .parquet, .csv, .jsonl" in error
    (tmp_path / "file").touch()
    error = fails(capsys, str(run), f"--per_user={tmp_path / 'file' / 'ranks.csv'}")
    assert "cannot be written" in error
    dataset = dataclasses.replace(load_dataset(interactions), sequences=None)
    with pytest.raises(DataError, match="does not say whose its samples are"):
        per_user.require_users(dataset)


def test_validation_is_drawn(interactions: Path, run: Path) -> None:
    from lares.training.loggers import read_rows

    best = max(float(row["valid_ndcg@10"]) for row in read_rows(run / "metrics.csv"))
    assert metrics(run, interactions, "--split=valid", "--states=drawn")["4"]["ndcg@10"] == best


def test_a_link_and_a_pipe_stay_what_they_are(
    interactions: Path, run: Path, tmp_path: Path
) -> None:
    expected = metrics(run, interactions)
    link, target, pipe = (tmp_path / name for name in ("link", "target", "pipe"))
    link.symlink_to(target)
    os.mkfifo(pipe)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    for place in (link, pipe, Path("/dev/null")):
        main(["evaluate", str(run), str(interactions), "--depths=1,4", "--output", str(place)])
    reader.join(10)
    assert link.is_symlink()
    for written in (target.read_text(), heard[0]):
        found = json.loads(written)
        assert {depth: usual(of_depth) for depth, of_depth in found.items()} == expected
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_where_nothing_can_be_written_is_told_first(
    interactions: Path, run: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_model", lambda path: pytest.fail("it went on"))
    (tmp_path / "file").touch()
    for output in (tmp_path, tmp_path / "file" / "x.json"):
        error = fails(capsys, str(run), str(interactions), "--output", str(output))
        assert f"--output {output} cannot be written" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ([], "when"),
        (["--data.time_column", "null"], None),
        (["--data.time_column="], ""),
        (["--data.time_column=timestamp"], "timestamp"),
    ],
)
def test_null_names_no_column_of_times(
    option: list[str], expected: str | None, interactions: Path, run: Path, tmp_path, monkeypatch
) -> None:
    """As in train: the column that the run named is not meant, either."""
    from lares.data import readers

    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("time_column: null", "time_column: when"))
    asked = []

    def load(path, **options):
        asked.append(options["time_column"])
        return read(path, **{**options, "time_column": None})

    read = readers.load_dataset
    monkeypatch.setattr(readers, "load_dataset", load)
    main(["evaluate", str(tmp_path / "run"), str(interactions), "--depths=1", *option])
    assert asked == [expected]
