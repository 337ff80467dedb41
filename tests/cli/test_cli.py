"""The command line as users meet it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lares import LaresModel, __version__
from lares.cli import COMMANDS, main
from lares.cli.doctor import asked_backend
from lares.data import load_dataset
from lares.evaluation import evaluate, popularity_tenths
from lares_kernels.binding.cpu_library import PRECISIONS, instruction_sets
from tests.cli.failing import fails
from tests.conftest import write_interactions
from tests.kernels.tools import NEEDS_CPU_KERNEL

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    "--model.d_model=16 --model.d_ff=16 --model.max_length=8 --optimizer.batch_size=64 "
    "--trainer.num_threads=1 --trainer.tensorboard=false --trainer.accelerator=cpu"
).split()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    data = write_interactions(folder / "walks.parquet")
    main(["train", str(data), "--out", str(folder / "run"), "--trainer.max_epochs=2", *SMALL])
    return folder / "run"


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from lares.cli import main; main(['--help']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys) -> None:
    try:
        main([command, "--help"])
    except SystemExit as stop:
        assert stop.code == 0
    printed = capsys.readouterr().out
    assert f"lares {command}" in printed
    assert " at 0x" not in printed  # a Python object instead of what to give


def test_version(capsys) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"lares {__version__}\n"


def test_unknown_names_get_suggestions(capsys, interactions: Path) -> None:
    assert "unknown command 'tarin'; did you mean 'train'?" in fails(capsys, "tarin")
    assert "did you mean '--trainer.patience'?" in fails(
        capsys, "train", str(interactions), "--trainer.patiense", "3"
    )
    assert "did you mean '--depths'?" in fails(capsys, "evaluate", "a", "b", "--depth", "3")
    assert "did you mean 'ml-100k'?" in fails(capsys, "data", "get", "ml100k")
    assert "did you mean 'info'?" in fails(capsys, "data", "inf")


def test_train_errors(capsys, interactions: Path, tmp_path: Path) -> None:
    data = str(interactions)
    assert "no data: give DATA" in fails(capsys, "train")
    assert "recipe is 'sasrek'" in fails(capsys, "train", data, "--recipe", "sasrek")
    assert "trainer.patience" in fails(capsys, "train", data, "--trainer.patience", "many")
    assert "--resume needs --out" in fails(capsys, "train", data, "--resume")
    nowhere = str(tmp_path / "nowhere")
    assert f"there is no run in {nowhere}" in fails(capsys, "train", "--out", nowhere, "--resume")
    file = tmp_path / "c.yaml"
    file.write_text("model: {d_modle: 3}\n")
    message = fails(capsys, "train", data, "--config", str(file))
    assert "unknown model option 'd_modle'; did you mean 'd_model'?" in message
    file.write_text("model: [")
    assert "c.yaml is not YAML" in fails(capsys, "train", data, "--config", str(file))
    bad = tmp_path / "bad.csv"
    bad.write_text("user_id,item_id\n1,2\n3\n")
    assert "bad.csv, line 3: the row has 1 cell; the header has 2" in fails(
        capsys, "train", str(bad)
    )


def test_options_override_file_and_file_overrides_recipe(tmp_path: Path, interactions) -> None:
    from lares.cli.train import parse

    file = tmp_path / "c.yaml"
    file.write_text("optimizer: {lr: 0.5, batch_size: 99}\nobjective: {alpha: 0.25}\n")
    config, _ = parse(
        [str(interactions), "--recipe=demo", f"--config={file}", "--optimizer.batch_size=77"]
    )
    assert config.optimizer.batch_size == 77
    assert config.optimizer.lr == 0.5
    assert config.objective.alpha == 0.25
    assert config.model["mean_depth"] == 2  # the recipe's
    assert config.data.path == str(interactions)


@pytest.mark.parametrize("given", ["null", "~", "a", ""])
def test_null_names_no_column_of_times(given: str, tmp_path: Path) -> None:
    """On the command line and in files, whatever a file named before."""
    from lares.cli.data import info_parser
    from lares.cli.train import parse

    expected = None if given in ("null", "~") else given
    named, file = tmp_path / "named.yaml", tmp_path / "c.yaml"
    named.write_text("data: {time_column: when}\n")
    file.write_text(f"data: {{time_column: {given or repr(given)}}}\n")
    before = ["x.csv", f"--config={named}"]
    for argv in ([*before, "--data.time_column", given], [*before, f"--config={file}"]):
        assert parse(argv)[0].data.time_column == expected
    assert info_parser().parse_args(["x.csv", "--time_column", given]).time_column == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.csv", "a"),
        ("b/a.train.csv.gz", "a"),
        (".hidden.csv", "hidden"),
        ("..a", "a"),
        (".", "work"),
        ("b/..", "work"),
        ("./b/", "b"),
        ("...", "data"),
    ],
)
def test_folders_of_runs_are_called_like_the_data(
    path: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lares.cli.train import default_folder

    (tmp_path / "work" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert default_folder(path, None) == Path("runs") / f"{name}-lares"


def test_the_folder_that_one_is_in_has_a_name(tmp_path: Path, capsys, monkeypatch) -> None:
    (tmp_path / "shop" / "b").mkdir(parents=True)
    write_interactions(tmp_path / "shop" / "x.parquet")
    monkeypatch.chdir(tmp_path / "shop")
    for path in (".", "b/..", "../shop/"):
        main(["data", "info", path])
        assert "name               shop\n" in capsys.readouterr().out
    for command in (["data", "info", ""], ["evaluate", "", "x"], ["evaluate", ".", ""]):
        assert "is ''; give the name of a file or folder" in fails(capsys, *command)
    assert "''" in fails(capsys, "train", "")


def test_run_again_and_resume(run_folder: Path, capsys) -> None:
    data = str(run_folder.parent / "walks.parquet")
    error = fails(capsys, "train", data, "--out", str(run_folder), "--trainer.max_epochs=2", *SMALL)
    assert "give --resume" in error
    main(["train", "--out", str(run_folder), "--resume"])
    assert "best epoch" in capsys.readouterr().out
    error = fails(capsys, "train", "--out", str(run_folder), "--resume", "--model.d_ff=32")
    assert "other options (model.d_ff)" in error


def test_posttrain(run_folder: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "rpt")
    options = [option for option in SMALL if not option.startswith("--model")]
    options += ["--trainer.max_epochs=1", "--objective.k=2", "--no_progress"]
    main(["posttrain", str(run_folder), f"--out={out}", *options])  # the data are the run's
    printed = capsys.readouterr().out
    assert "Before:" in printed
    assert "After:" in printed
    error = fails(capsys, "posttrain", str(run_folder), f"--out={out}", *options)
    assert "give --resume" in error
    main(["posttrain", f"--out={out}", "--resume"])
    assert "of 1" in capsys.readouterr().out
    main(["evaluate", out, str(run_folder.parent / "walks.parquet"), "--depths=1"])
    assert "NDCG@10" in capsys.readouterr().out
    assert "no data: give DATA" in fails(capsys, "posttrain", str(run_folder / "best"))
    assert "neither a run folder" in fails(capsys, "posttrain", str(tmp_path), "data.csv")
    message = fails(capsys, "posttrain", str(run_folder), "--objective.kind=ppo")
    assert "objective.kind is 'ppo'" in message


def test_evaluate(run_folder: Path, tmp_path: Path, capsys) -> None:
    data = run_folder.parent / "walks.parquet"
    output = tmp_path / "metrics.json"
    main(["evaluate", str(run_folder), str(data), "--depths=1,3", "--output", str(output)])
    table = capsys.readouterr().out
    assert "NDCG@10" in table
    model = LaresModel.from_pretrained(run_folder / "best")
    expected = evaluate(model, load_dataset(data).test, depths=[1, 3], seed=2025)
    found = json.loads(output.read_text())
    for depth, metrics in expected.items():
        assert found[str(depth)].items() >= metrics.items()
    assert f"{expected[3]['recall@10']:.4f}" in table
    main(["evaluate", str(run_folder / "best"), str(data), "--depths=1", "--split=valid"])
    assert "NDCG@10" in capsys.readouterr().out


def test_evaluate_by_popularity(run_folder: Path, tmp_path: Path, capsys) -> None:
    data = run_folder.parent / "walks.parquet"
    output = tmp_path / "metrics.json"
    arguments = [str(run_folder), str(data), "--depths=1,3", "--ks=5"]
    main(["evaluate", *arguments, "--by_popularity", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "depth 3, by popularity of the target" in printed
    dataset, found = load_dataset(data), json.loads(output.read_text())
    tenths = popularity_tenths(dataset, dataset.test)
    met = dataset.item_counts()[dataset.test.targets]
    for depth, rows in found.pop("by_popularity").items():
        assert len(rows) > 1
        shares = {str(tenth + 1): np.mean(tenths == tenth) for tenth in np.unique(tenths)}
        for tenth, row in rows.items():
            within = met[tenths == int(tenth) - 1]
            assert row["samples"] == len(within)
            assert (row["least_met"], row["most_met"]) == (within.min(), within.max())
            numbers = f"{len(within):,}", str(within.min()), str(within.max())
            table = [line.split() for line in printed.split("depth ")[-1].splitlines()]
            assert [tuple(line[1:4]) for line in table if line[0] == tenth] == [numbers]
        assert sum(row["samples"] for row in rows.values()) == len(tenths)
        together = sum(shares[tenth] * row["ndcg@5"] for tenth, row in rows.items())
        assert together == pytest.approx(found[depth]["ndcg@5"], rel=1e-6)


def test_evaluate_errors(run_folder: Path, tmp_path: Path, capsys) -> None:
    data = str(run_folder.parent / "walks.parquet")
    assert "--split is 'train'" in fails(capsys, "evaluate", str(run_folder), data, "--split=train")
    assert "--ks is '5;10'; it must be whole numbers" in fails(
        capsys, "evaluate", str(run_folder), data, "--ks=5;10"
    )
    assert "depths are (0,)" in fails(capsys, "evaluate", str(run_folder), data, "--depths=0")
    assert "neither a run folder" in fails(capsys, "evaluate", str(tmp_path), data)
    wider = write_interactions(tmp_path / "wider.parquet", n_items=40)
    assert "unknown to this catalogue" in fails(capsys, "evaluate", str(run_folder), str(wider))
    assert "--device warp" in fails(capsys, "evaluate", str(run_folder), data, "--device", "warp")


def test_recommend(run_folder: Path, tmp_path: Path, capsys) -> None:
    model = LaresModel.from_pretrained(run_folder / "best")
    main(["recommend", str(run_folder), "--history", "3,4,6", "--k=5"])
    assert capsys.readouterr().out.strip() == ",".join(map(str, model.recommend([[3, 4, 6]], 5)[0]))
    file = tmp_path / "histories.txt"
    file.write_text("3,4,6\n10\n")
    main(["recommend", str(run_folder), "--histories", str(file), "--k=5", "--keep_history"])
    expected = model.recommend([[3, 4, 6], [10]], 5, remove_history=False)
    assert capsys.readouterr().out.splitlines() == [",".join(map(str, row)) for row in expected]
    file.write_text("3,4,6\n\n10\n999\n")
    main(
        ["recommend", str(run_folder), f"--histories={file}", "--k=5", "--keep_history"]
        + ["--unknown=skip", "--emptied=popular"]
    )
    popular = json.loads((run_folder / "data.json").read_text())["popular"][:5]
    expected = [expected[0], popular, expected[1], popular]
    assert capsys.readouterr().out.splitlines() == [",".join(map(str, row)) for row in expected]


def test_recommend_speaks_raw_ids(tmp_path: Path, capsys) -> None:
    """A catalogue of names: they go in and come out."""
    rows = "".join(f"u{u},film-{chr(97 + (u + i) % 20)},{i}\n" for u in range(30) for i in range(6))
    (tmp_path / "films.csv").write_text("user_id,item_id,timestamp\n" + rows)
    main(
        ["train", str(tmp_path / "films.csv"), f"--out={tmp_path / 'run'}", *SMALL]
        + ["--trainer.max_epochs=1"]
    )
    capsys.readouterr()
    main(["recommend", str(tmp_path / "run"), "--history", "film-c,film-d", "--k=3"])
    found = capsys.readouterr().out.strip().split(",")
    assert len(found) == 3
    assert all(name.startswith("film-") for name in found)
    assert not {"film-c", "film-d"} & set(found)
    error = fails(capsys, "recommend", str(tmp_path / "run"), "--history", "film-c,film-?")
    assert "--history: item 'film-?' is unknown" in error


def test_recommend_errors(run_folder: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "h.txt"
    file.write_text("3,4\n5,,6\n")
    run = str(run_folder)
    assert "h.txt, line 2" in fails(capsys, "recommend", run, "--histories", str(file))
    assert "give --history" in fails(capsys, "recommend", run)
    assert "item 999 is unknown" in fails(capsys, "recommend", run, "--history=999")
    assert "k is 0" in fails(capsys, "recommend", run, "--history=3", "--k=0")
    assert "--depth is 0" in fails(capsys, "recommend", run, "--history=3", "--depth=0")


def test_data_info(interactions: Path, capsys) -> None:
    main(["data", "info", str(interactions)])
    text = capsys.readouterr().out
    assert "users" in text
    assert f"{len(load_dataset(interactions).train):,}" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("foo", "LARES_BACKEND is 'foo': there is no such backend; there are one, other"),
        ("a\nb", "LARES_BACKEND is 'a\\nb': there is no such backend; there are one, other"),
        ("One", "LARES_BACKEND is 'One': there is no such backend; there are one, other"),
        ("other", "LARES_BACKEND is 'other', which cannot run here: every call fails"),
        ("one", "LARES_BACKEND=one asks for that one in every call"),
    ],
)
def test_doctor_says_what_the_backend_asked_for_is(name: str, said: str) -> None:
    assert asked_backend(name, {"one": "usable", "other": "no card"}) == said


def test_doctor(capsys) -> None:
    main(["doctor"])
    text = capsys.readouterr().out
    assert f"torch             {torch.__version__.split('+')[0]}" in text
    assert "reference         usable" in text
    assert "accelerators" in text


def test_an_instruction_set_that_is_not_there(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from lares_kernels.binding import cpu_library

    monkeypatch.setenv(cpu_library.ISA_VARIABLE, "mmx")
    cpu_library.load.cache_clear()
    try:
        error = fails(capsys, "doctor")
    finally:
        monkeypatch.undo()
        cpu_library.load.cache_clear()
    assert "LARES_CPU_ISA asks for instruction set 'mmx'" in error


@pytest.mark.parametrize("failing", [False, True])
def test_checks_are_a_table(failing: bool, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from lares_kernels import machine
    from lares_kernels.common.verdicts import Verdict

    error = 1.0 if failing else 1e-7
    rows = [
        machine.Row(
            "cpu, avx2", "attention fp32", Verdict("k", "d", {"x": error}, {"x": 1e-5}, 0.1)
        ),
        machine.Row("triton", "", "there is no GPU"),
    ]
    monkeypatch.setattr(machine, "check_all", lambda: iter(rows))
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--check"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == int(failing)
    assert ("FAILED" if failing else "good") in lines[1]
    assert "x off by" in lines[1]
    assert lines[2].endswith("there is no GPU")


@NEEDS_CPU_KERNEL
def test_checks_are_of_every_precision_and_instruction_set(monkeypatch) -> None:
    """Each of those that serve it, whether they multiply in it or not."""
    from lares_kernels import machine

    for name in ("check_refine", "check_catalogue"):
        monkeypatch.setattr(machine.self_check, name, lambda *asked: "looked at")
    rows = [row for row in machine.check_all() if row.verdict == "looked at"]
    for precision in PRECISIONS:
        for isa in instruction_sets(precision):
            asked = [row.what for row in rows if row.kernels == f"cpu, {isa}"]
            for what in ("attention", "filter", "bsarec", "catalogue"):
                assert asked.count(f"{what} {precision}") == 1


@pytest.mark.long
def test_every_check_of_this_machine_is_good() -> None:
    from lares_kernels.machine import check_all

    for row in check_all():
        assert isinstance(row.verdict, str) or not row.verdict.failed, row


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "error: memory does not suffice (MemoryError)"),
        (
            MemoryError("lares_refine_backward: no memory"),
            "does not suffice (lares_refine_backward",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9\nmore"),
            "allocate memory: 9)",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB\nmore"), "Tried 9 GiB)"),
        (
            RuntimeError("Symlink loop from '/x'"),
            "error: Symlink loop from '/x': give another place",
        ),
    ],
)
def test_errors_of_the_system_are_one_line(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: object) -> None:
        raise error

    monkeypatch.setattr("lares.cli.doctor.run", run)
    assert told in fails(capsys, "doctor")


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("lares.cli.doctor.run", run)
    with pytest.raises(RuntimeError, match="of ours"):
        main(["doctor"])


CLOSED = """
import os, sys
from lares.cli import main
main(["--version"])
opened = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(2, b"noise")  # as libraries write, which know no sys.stderr
child = os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "true <&0 >&1 2>&2")  # has them, too
os._exit(opened if child == 0 else 99)
"""


@pytest.mark.parametrize(
    "closed", ["0<&-", "1>&-", "2>&-", "0<&- 2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"]
)
def test_closed_streams_are_no_place_for_files(closed: str, tmp_path: Path) -> None:
    """A file that is opened would get their number, and what is meant for them."""
    command = shlex.join([sys.executable, "-c", CLOSED, str(tmp_path / "file")])
    done = subprocess.run(["sh", "-c", f"exec {command} {closed}"], cwd=ROOT, capture_output=True)
    assert done.returncode > 2
    assert done.returncode < 99
    assert (tmp_path / "file").read_bytes() == b""
    assert done.stdout == (b"" if "1>" in closed else f"lares {__version__}\n".encode())


@pytest.mark.long
def test_a_run_without_a_standard_error(interactions: Path, tmp_path: Path) -> None:
    """Its lock says who holds it, and nothing else."""
    program = (
        "import sys\nfrom lares.training.trainer import Trainer\nfrom lares.cli import main\n"
        "import os\nstep = Trainer._step\n"
        "def noisy(self, indices):\n"
        "    os.write(2, b'noise')\n"
        "    print(open(os.path.join(self.folder.path, '.lock')).read())\n"
        "    return step(self, indices)\n"
        "Trainer._step = noisy\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, "train", str(interactions), "--trainer.max_epochs=1"]
    command += [f"--out={tmp_path / 'run'}", "--no_progress", *SMALL]
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.join(command)} 0<&- 2>&-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert re.search(r"^process \d+ on \S+$", done.stdout, re.MULTILINE)
    assert "noise" not in done.stdout
