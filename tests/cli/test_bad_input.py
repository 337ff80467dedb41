"""Bad command lines and bad files: one line that says what is wrong, and nothing left behind.

Each case is a command line, and what its one line on standard error must hold. What it is told to do
to files first is a function of the folder that it works in.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lares.cli import main
from tests.conftest import write_interactions

SMALL = (
    "--model.d_model=8 --model.d_ff=8 --model.max_length=4 --optimizer.batch_size=64 "
    "--trainer.num_threads=1 --trainer.tensorboard=false --trainer.accelerator=cpu "
    "--trainer.max_epochs=1 --trainer.test_depths=[1]"
).split()
HUGE = "9" * 5000  # more digits than Python turns into a number


class Case(NamedTuple):
    """A command line, parts of the message, and what is done before, in the folder."""

    command: str
    holds: tuple[str, ...]
    before: Callable[[Path], object] = lambda folder: None
    environment: tuple[tuple[str, str], ...] = ()


def case(command: str, *holds: str, before: Any = lambda folder: None, **environment: str) -> Any:
    name = command.replace(" ".join(SMALL), "...")[:100]
    return pytest.param(Case(command, holds, before, tuple(environment.items())), id=name)


def written(name: str, content: str | bytes) -> Callable[[Path], object]:
    """What writes a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, keep: float = 0.5) -> Callable[[Path], object]:
    """What truncates a file."""

    def act(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return act


def options(name: str, **changed: object) -> Callable[[Path], object]:
    """What changes a JSON file."""

    def act(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changed}))

    return act


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    """What changes the weights of the run's model, in a file without a checksum, as others write."""

    def act(folder: Path) -> None:
        path = folder / "run/best/model.safetensors"
        save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path)

    return act


def npy(name: str, array: np.ndarray) -> Callable[[Path], object]:
    """What writes an array."""
    return lambda folder: np.save(folder / name, array)


def npy_of_shape(name: str, shape: str) -> Callable[[Path], object]:
    """What writes a header that promises ``shape``, and nothing after it."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return written(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())


def named_features(items: str, width: int) -> Callable[[Path], object]:
    """What writes text features with the ids of their rows."""
    features = {"features": torch.zeros(25, width)}
    return lambda folder: save_file(features, folder / "f.safetensors", {"items": items})


TRAIN = "train {data} --out {new} " + " ".join(SMALL)
POSTTRAIN = "posttrain {run} {data} --out {new} --trainer.accelerator=cpu --trainer.max_epochs=1"
EVALUATE = "evaluate {run} {data} --depths 1"
RECOMMEND = "recommend {run} --history 3,4"

CASES = [
    # --- words that are no commands, options or choices
    case("tarin", "unknown command 'tarin'"),
    case("train {data} --trainer.sed 3", "--trainer.sed", "--trainer.seed"),
    case("train", "no data"),
    case("train {folder}/nowhere.csv --out {new}", "nowhere.csv"),
    case(TRAIN + " --recipe sasrek", "recipe is 'sasrek'"),
    case(TRAIN + " --trainer.precision 16-true", "trainer.precision is '16-true'", "16-mixed"),
    case(TRAIN + " --trainer.precision 8-bit", "trainer.precision is '8-bit'"),
    case(TRAIN + " --model.core=mamba", "core is 'mamba'"),
    case(EVALUATE + " --split train", "--split is 'train'"),
    case(EVALUATE + " --states mine", "--states is 'mine'"),
    case(EVALUATE + " --unknown drop", "--unknown is 'drop'"),
    case(EVALUATE + " --ks 5;10", "--ks is '5;10'"),
    case(EVALUATE + " --remove_history --keep_history", "--remove_history and --keep_history"),
    case("recommend {run}", "--history"),
    case("data get nothing", "unknown data set 'nothing'"),
    case("data get amazon23 Nothing", "Nothing"),
    # --- accelerators, devices, backends
    case(TRAIN + " --trainer.accelerator=tpu", "trainer.accelerator=tpu"),
    case(TRAIN + " --trainer.accelerator=warp", "trainer.accelerator is 'warp'"),
    case(TRAIN + " --trainer.devices=0", "trainer.devices is 0"),
    case(TRAIN + " --trainer.devices=100000", "devices"),
    case(
        TRAIN + " --trainer.devices=4000 --optimizer.batch_size=100000", "trainer.devices is 4000"
    ),
    case(EVALUATE + " --device warp", "--device warp"),
    case(EVALUATE + " --device cuda:99", "--device cuda:99"),
    case(EVALUATE + " --device xpu", "--device xpu"),
    case(RECOMMEND + " --device mps", "--device mps"),
    case(RECOMMEND + " --device cpu:x", "--device cpu:x"),
    case(TRAIN, "LARES_BACKEND is 'foo'", "cpu", LARES_BACKEND="foo"),
    case(POSTTRAIN, "LARES_BACKEND is 'foo'", LARES_BACKEND="foo"),
    case(EVALUATE, "LARES_BACKEND is 'foo'", LARES_BACKEND="foo"),
    case(RECOMMEND, "LARES_BACKEND is 'foo'", LARES_BACKEND="foo"),
    # --- what a launcher says
    *(
        case(command, f"{name} is {value!r} in the environment", **{name: value})
        for command in (TRAIN, POSTTRAIN)
        for name, values in (
            ("LOCAL_RANK", ("abc", "", "-1", "1.5", "²")),
            ("RANK", ("abc",)),
            ("WORLD_SIZE", ("0", "many")),
            ("LOCAL_WORLD_SIZE", ("0", HUGE[:30] + "x")),
        )
        for value in values
    ),
    # --- numbers
    *(
        case(
            command + f" {option}={value}", option.lstrip("-"), "digits" if value is HUGE else value
        )
        for command, option in (
            (TRAIN, "--trainer.seed"),
            (POSTTRAIN, "--trainer.seed"),
            (EVALUATE, "--seed"),
            (RECOMMEND, "--seed"),
            ("demo --out {new}", "--seed"),
        )
        for value in ("-1", str(2**64), "soon", "1.5", HUGE)
    ),
    *(
        case(command + f" {option}={value}", "num_threads", value)
        for command, option in (
            (TRAIN, "--trainer.num_threads"),
            (EVALUATE, "--num_threads"),
            (RECOMMEND, "--num_threads"),
            ("demo --out {new}", "--num_threads"),
        )
        for value in ("0", "-1", "1000000000", "many")
    ),
    case(TRAIN + " --optimizer.lr=fast", "optimizer.lr", "fast"),
    case(TRAIN + " --optimizer.lr=1e999", "optimizer.lr is inf"),
    case(TRAIN + f" --optimizer.lr={HUGE}", "optimizer.lr"),
    case(TRAIN + f" --optimizer.batch_size={10**30}", "optimizer.batch_size", str(10**30)),
    case(TRAIN + f" --trainer.test_depths=[1,{10**9}]", "trainer.test_depths", str(10**9)),
    case(TRAIN + " --trainer.test_depths=[]", "trainer.test_depths"),
    case(TRAIN + f" --model.mean_depth={10**9}", "mean_depth", str(10**9)),
    case(TRAIN + f" --model.d_model={10**9}", "d_model=1000000000"),
    case(TRAIN + f" --model.max_length={10**12}", "model.max_length=1000000000000"),
    case(TRAIN + f" --model.d_ff={10**30}", str(10**30)),
    case(TRAIN + " --model.d_model=wide", "model.d_model", "wide"),
    case(TRAIN + " --objective.alpha=much", "objective.alpha", "much"),
    case(TRAIN + " --model.n_core_layers=300", "n_core_layers is 300", "256"),
    case(TRAIN + " --model.n_pre_layers=300", "n_pre_layers is 300", "256"),
    *(
        case(TRAIN + f" --model.{name}=1e{digits}", name, f" 1e+{digits}", "1e+15")
        for name in ("state_omega", "state_sigma")
        for digits in (16, 30, 308)
    ),
    case(TRAIN + " --optimizer.weight_decay=1e308", "optimizer.weight_decay is 1e+308", "1e+30"),
    case(POSTTRAIN + " --optimizer.weight_decay=1e39", "optimizer.weight_decay is 1e+39"),
    case(TRAIN + f" --data.core={10**30}", "core"),
    case(POSTTRAIN + " --objective.rollouts=300", "objective.rollouts is 300"),
    case(POSTTRAIN + " --objective.kind=ppo", "objective.kind is 'ppo'"),
    case(POSTTRAIN + f" --objective.k={10**30}", "objective.k", str(10**30)),
    case(POSTTRAIN + f" --objective.filter_top={10**30}", "objective.filter_top", str(10**30)),
    case(EVALUATE + " --ks 0", "--ks is 0"),
    case(EVALUATE + " --ks=", "--ks is ''"),
    case(EVALUATE + f" --ks={HUGE}", "--ks"),
    case("evaluate {run} {data} --depths=-1", "--depths is -1"),
    case(f"evaluate {{run}} {{data}} --depths={10**9}", "--depths is 1000000000"),
    case(EVALUATE + " --batch_size 0", "--batch_size is 0"),
    case(RECOMMEND + " --k 0", "--k is 0"),
    case(RECOMMEND + f" --k {10**30}", f"k is {10**30}"),
    case(RECOMMEND + f" --depth {10**9}", "--depth is 1000000000"),
    case("recommend {run} --history 999", "item 999 is unknown"),
    case(f"recommend {{run}} --history {10**25}", "item", str(10**25)),
    case(f"recommend {{run}} --history {HUGE}", "item", "unknown"),
    case(f"recommend {{run}} --history -{HUGE}", "unknown"),
    *(
        case(command, *holds)
        for command, holds in (
            (
                TRAIN + " --trainer.seed=soon",
                ("--trainer.seed is 'soon'; it must be a whole number",),
            ),
            (
                TRAIN + " --trainer.seed=null",
                ("--trainer.seed is null; it must be a whole number",),
            ),
            (
                TRAIN + " --trainer.num_threads=x",
                ("--trainer.num_threads is 'x'; it must be a whole",),
            ),
            (TRAIN + " --trainer.seed=1:30", ("--trainer.seed is '1:30'; it must be a whole",)),
            (TRAIN + " --trainer.num_threads 1:30", ("--trainer.num_threads is '1:30'",)),
            (
                TRAIN + " --optimizer.lr=1:30.5",
                ("--optimizer.lr is '1:30.5'; it must be a number",),
            ),
            (
                TRAIN + " --trainer.test_depths=[1:30]",
                ("test_depths is '[1:30]'; it must be a list",),
            ),
            (EVALUATE + " --batch_size 1:30", ("--batch_size is '1:30'",)),
            (RECOMMEND + " --k=1:2", ("--k is '1:2'; it must be a whole number",)),
            ("recommend {run} --history 1:30", ("item '1:30' is unknown",)),
            (TRAIN + " --data.time_column 1:30", ("'1:30'", "columns")),
            (TRAIN + " --optimizer.lr=", ("--optimizer.lr is ''; it must be a number",)),
            (TRAIN + " --data.text_ids=maybe", ("--data.text_ids is 'maybe'; it must be true or",)),
            (
                TRAIN + " --trainer.test_depths=3",
                ("--trainer.test_depths is '3'; it must be a list",),
            ),
            (RECOMMEND + " --k=1e1", ("--k is '10.0'; it must be a whole number",)),
            (RECOMMEND + f" --k={'x' * 10**5}", ("--k is 'xxx", "100,002 letters", "whole number")),
            (TRAIN + f" --trainer.test_depths=[{'1,' * 10**5}x]", ("trainer.test_depths",)),
        )
    ),
    # --- columns
    case(
        TRAIN + " --data.user_column=item_id", "data.user_column", "data.item_column", "'item_id'"
    ),
    case(
        TRAIN + " --data.time_column=user_id", "data.user_column", "data.time_column", "'user_id'"
    ),
    case(EVALUATE + " --data.item_column=user_id", "data.user_column", "'user_id'"),
    case("data info {data} --item_column=user_id", "data.user_column", "'user_id'"),
    case(TRAIN + " --data.item_column=", "data.item_column"),
    *(
        case(f"data embed {{data}} --model x --text_columns {names}", "--text_columns", names)
        for names in ("item_id", "title,item_id", "title,title")
    ),
    case(TRAIN + " --data.item_column=film", "film"),
    case(TRAIN + " --data.delimiter=", "data.delimiter"),
    # --- places that cannot be written
    case("train {data} --out {folder}/plain.txt " + " ".join(SMALL), "plain.txt", "--out"),
    case("train {data} --out {folder}/plain.txt/deep " + " ".join(SMALL), "plain.txt", "--out"),
    case("train {data} --out /proc/nothing " + " ".join(SMALL), "/proc/nothing", "--out"),
    case("train {data} --out {folder}/" + "x" * 300 + " " + " ".join(SMALL), "xxx", "too long"),
    case("posttrain {run} {data} --out {folder}/plain.txt", "plain.txt", "--out"),
    case("train {data} --out {run} " + " ".join(SMALL), "run", "--resume"),
    case("train --out {folder} --resume", "--resume", "no run"),
    case(EVALUATE + " --output {folder}", "--output"),
    case(EVALUATE + " --output {folder}/plain.txt/x.json", "--output", "plain.txt"),
    case(EVALUATE + " --output /proc/nothing.json", "/proc/nothing.json"),
    case("demo --out {folder}/plain.txt", "--out", "plain.txt"),
    case("data get ml-100k --out {folder}/plain.txt", "--out", "plain.txt"),
    case(
        "data embed {folder}/plain.txt --model x --output {folder}/plain.txt/x.safetensors",
        "--output",
        "plain.txt",
    ),
    *(
        case(command, f"{name} is ''")
        for command, name in (
            (TRAIN.replace("{new}", "").replace("--out ", "--out="), "--out"),
            ("train --resume --out=", "--out"),
            ("posttrain {run} {data} --out=", "--out"),
            ("demo --out=", "--out"),
            ("data get ml-100k --out=", "--out"),
            ("data embed {data} --model x --output=", "--output"),
            (EVALUATE + " --output=", "--output"),
            ("recommend {run} --histories=", "--histories"),
        )
    ),
    # --- files of options
    case(TRAIN + " --config {folder}/none.yaml", "none.yaml"),
    *(
        case(TRAIN + " --config {folder}/bad.yaml", *holds, before=written("bad.yaml", content))
        for content, holds in (
            (b"trainer: {seed: \xff\xfe}", ("bad.yaml", "utf-8")),
            ("model: [", ("bad.yaml", "not YAML")),
            ("- 1\n- 2\n", ("bad.yaml", "list")),
            ("model: 3\n", ("'model'", "3")),
            ("model: {d_modle: 3}\n", ("'d_modle'", "'d_model'")),
            ("model: {3: 4}\n", ("3",)),
            ("1: {3: 4}\n", ("1",)),
            ("model: {d_model: [8]}\n", ("d_model", "[8]")),
            ("trainer: {seed: 2020-13-45}\n", ("bad.yaml", "month")),
            (f"trainer: {{seed: {HUGE}}}\n", ("bad.yaml", "digits")),
            ("a: " + "[" * 3000, ("bad.yaml",)),
            ("objective: {alpha: much}\n", ("objective.alpha", "'much'")),
            ("optimizer: {lr: true}\n", ("optimizer.lr", "True")),
            ("data: {path: [a]}\n", ("data.path", "['a']")),
            ("trainer: {test_depths: 3}\n", ("trainer.test_depths", "3")),
            ("trainer: {tensorboard: 3}\n", ("trainer.tensorboard", "3")),
            ("model: {n_items: 5}\n", ("model.n_items",)),
            (
                "trainer: {seed: 1}\nmodel: {}\ntrainer: {seed: 2}\n",
                ("'trainer'", "twice", "line 3"),
            ),
            ("trainer: {seed: 1, seed: 2}\n", ("'seed'", "twice", "line 1")),
            ("trainer: {seed: 1, 'seed': 1}\n", ("'seed'", "twice")),
            ("optimizer: {lr: 1:30}\n", ("'1:30'", "line 1")),
            ("optimizer: {lr: 1:30.5}\n", ("'1:30.5'",)),
            ("trainer: {seed: 010}\n", ("'010'",)),
            ("trainer: {seed: -1:30}\n", ("'-1:30'",)),
            (" " * 2_000_000, ("bad.yaml", "1,000,000")),
        )
    ),
    *(case(TRAIN + f" --config {name}", name) for name in ("/dev/zero", "/dev/full", "/proc")),
    # --- files of data
    *(
        case("data info {folder}/bad.csv", "bad.csv", *holds, before=written("bad.csv", content))
        for content, holds in (
            ("", ("empty",)),
            ("user_id,item_id\n1,2\n3\n", ("line 3",)),
            ("user_id,user_id\n1,2\n", ("'user_id'",)),
            (b"user_id,item_id\n1,\xff\n", ("line 2",)),
            (b"\x00\x01\x02\x03" * 100, ()),
            (f"user_id,item_id,timestamp\n1,2,{'x' * 10**6}\n", ("line 2", "1,000,002 letters")),
            (f"user_id,item_id,timestamp\n1,2,1{'0' * 10**6}\n", ("line 2", "letters")),
            (f"user_id,item_id,timestamp\n1,2,3\n1,3,{'x' * 10**6}\n", ("line 3", "letters")),
        )
    ),
    case("data info {run} --format recbole", "holds no file ending in .inter"),
    case(TRAIN.format(data="{run}", new="{new}") + " --data.format=recbole", ".inter"),
    case("data info {folder}/bad.parquet", "bad.parquet", before=written("bad.parquet", b"PAR1xx")),
    # --- histories
    *(
        case(
            "recommend {run} --histories {folder}/h.csv",
            "h.csv",
            *holds,
            before=written("h.csv", c),
        )
        for c, holds in (
            ("", ("no history",)),
            ("3,4\n5,,6\n", ("line 2",)),
            (b"3,4\n\xff\n", ("line 2", "not UTF-8")),
            ('"3,4\n', ("line 1",)),
            ("3,999\n", ("999", "line 1")),
            (f"3,{HUGE}\n", ("line 1", "unknown")),
            ("3," + "x" * 10**6 + "\n", ("line 1", "unknown", "1,000,002 letters")),
            ("3,," + "x," * 10**5 + "\n", ("line 1", "is not a history")),
            ("\u20283\n", ("line 1", "unknown")),
            ("3\u00a0,4\n", ("line 1", "unknown")),
        )
    ),
    case("recommend {run} --histories {folder}/none.csv", "none.csv"),
    # --- models
    case("recommend {folder} --history 3", "neither a run folder"),
    case("evaluate {folder}/none {data}", "none", "neither"),
    *(
        case(RECOMMEND, "run/best/config.json", *holds, before=before)
        for before, holds in (
            (cut("run/best/config.json"), ("JSON",)),
            (written("run/best/config.json", "[1]"), ()),
            (written("run/best/config.json", b"\xff\xfe"), ()),
            (written("run/best/config.json", "[" * 10**5), ()),
            (options("run/best/config.json", d_modle=3), ("'d_modle'",)),
            (options("run/best/config.json", d_model="wide"), ("d_model is 'wide'",)),
            (options("run/best/config.json", tau=[1]), ("tau is [1]",)),
            (options("run/best/config.json", d_model=0), ("d_model is 0",)),
        )
    ),
    *(
        case(RECOMMEND, str(value), before=options("run/best/config.json", **{name: value}))
        for name, value in (
            ("d_model", 10**9),
            ("d_ff", 10**12),
            ("max_length", 10**15),
            ("n_pre_layers", 255),
            ("n_pre_layers", 10**9),
            ("n_core_layers", 10**9),
            ("state_sigma", 1e300),
        )
    ),
    case(RECOMMEND, "items", before=options("run/best/config.json", n_items=10**9)),
    *(
        case(RECOMMEND, "run/best/model.safetensors", *holds, before=before)
        for before, holds in (
            (cut("run/best/model.safetensors"), ()),
            (cut("run/best/model.safetensors", 0.0), ()),
            (written("run/best/model.safetensors", b"\xff" * 100), ()),
            (
                written("run/best/model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
                (),
            ),
            (weights(lambda tensor: tensor.to(torch.int32)), ("torch.int32",)),
            (weights(lambda tensor: tensor.to(torch.bool)), ("torch.bool",)),
            (weights(lambda tensor: tensor[None]), ("shape",)),
            (weights(lambda tensor: tensor * torch.nan), ("NaN",)),
        )
    ),
    *(
        case(command, "too large for their precision", before=weights(lambda tensor: tensor * 1e35))
        for command in (RECOMMEND, EVALUATE, POSTTRAIN)
    ),
    *(
        case(RECOMMEND, "run/best/items.json", before=written("run/best/items.json", content))
        for content in ("", "[", "3", "[]", b"\xff", "[1.5]", "[3, 1]", f"[{HUGE}]", "[" * 10**5)
    ),
    # --- runs
    *(
        case(command, "run/config.yaml", *holds, before=written("run/config.yaml", content))
        for command in (RECOMMEND, EVALUATE, "train --resume --out {run}")
        for content, holds in ((b"\xff\xfe\x00", ("utf-8",)), ("model: [", ("YAML",)), ("[1]", ()))
    ),
    *(
        case("train --resume --out {run} --trainer.max_epochs=2", name, before=before)
        for name, before in (
            ("run/metrics.csv", written("run/metrics.csv", b"epoch,loss\n\xff,1\n")),
            ("run/metrics.csv", written("run/metrics.csv", "epoch,loss\nx,1\n")),
            ("run/metrics.csv", written("run/metrics.csv", "loss\n1\n")),
            ("run/metrics.csv", written("run/metrics.csv", "epoch,loss\n1,2,3\n")),
            ("run/metrics.csv", written("run/metrics.csv", "epoch,loss\n1\n")),
            ("run/timing.csv", written("run/timing.csv", b"\x00\x01")),
            ("run/checkpoints/last.safetensors", cut("run/checkpoints/last.safetensors")),
            ("run/checkpoints/last.safetensors", written("run/checkpoints/last.safetensors", "x")),
            ("run/data.json", cut("run/data.json")),
            ("run/data.json", written("run/data.json", "{}")),
            ("run/data.json", written("run/data.json", "[1]")),
            ("run/data.json", written("run/data.json", b"\xff")),
            ("run/data.json", options("run/data.json", users="many")),
            ("run/data.json", options("run/data.json", popular=3)),
        )
    ),
    case(
        "recommend {run} --history 999 --unknown skip --emptied popular",
        "run/data.json",
        before=written("run/data.json", "{"),
    ),
    *(
        case("posttrain --resume --out {rpt}", "rpt/start/samples.npy", before=before)
        for before in (
            cut("rpt/start/samples.npy"),
            written("rpt/start/samples.npy", b""),
            written("rpt/start/samples.npy", b"PK\x03\x04"),
            npy("rpt/start/samples.npy", np.array(3)),
            npy("rpt/start/samples.npy", np.array([1.5])),
            npy("rpt/start/samples.npy", np.array([], np.int64)),
            npy("rpt/start/samples.npy", np.array([-1, 2])),
            npy("rpt/start/samples.npy", np.array([2, 1])),
            npy("rpt/start/samples.npy", np.array([1, 10**9])),
            npy("rpt/start/samples.npy", np.array(["a"])),
            npy_of_shape("rpt/start/samples.npy", f"({10**12},)"),
            npy_of_shape("rpt/start/samples.npy", f"({10**30},)"),
        )
    ),
    # --- text features
    *(
        case(
            TRAIN + " --model.text_features={folder}/f.safetensors",
            "f.safetensors",
            *holds,
            before=named_features(items, width),
        )
        for items, width, holds in (
            ("[" * 10**5, 3, ("no JSON list",)),
            ("{}", 3, ("0 item ids",)),
            ("3", 3, ("0 item ids",)),
            (json.dumps(list(range(1, 26))), 0, ("(26, 0)",)),
            (json.dumps(list(range(2, 27))), 3, ("for 1 of 25 items",)),
            (json.dumps([[i] for i in range(1, 26)]), 3, ("for 25 of 25 items",)),
        )
    ),
    case(TRAIN + " --model.text_width=5", "model.text_width is 5", "model.text_features"),
    case(
        TRAIN + " --model.text_width=5 --model.text_features={folder}/f.npy",
        "model.text_width is 5",
        "f.npy",
        "3 wide",
        before=npy("f.npy", np.zeros((26, 3), np.float32)),
    ),
    *(
        case(TRAIN + " --model.text_features={folder}/f.npy", "f.npy", *holds, before=before)
        for before, holds in (
            (lambda folder: None, ()),
            (written("f.npy", "x"), ()),
            (npy("f.npy", np.array(["a"])), ("<U1",)),
            (npy("f.npy", np.zeros((3, 4))), ("(3, 4)",)),
            (npy("f.npy", np.zeros((26, 0))), ()),
            (npy("f.npy", np.full((26, 2), 1e300)), ("infinity",)),
            (npy_of_shape("f.npy", f"({10**9}, {10**9})"), ()),
        )
    ),
]


def listing(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, and what is in its files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a run on them, and one that post-trains its model."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_interactions(folder / "walks.parquet")
    main(["train", str(data), f"--out={folder / 'run'}", "--no_progress", *SMALL])
    kept = [option for option in SMALL if not option.startswith("--model")]
    main(["posttrain", str(folder / "run"), f"--out={folder / 'rpt'}", "--no_progress", *kept])
    (folder / "plain.txt").write_text("a file\n")
    return folder


@pytest.mark.parametrize("bad", CASES)
def test_bad_input(
    bad: Case, runs: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    shutil.copytree(runs, folder)
    bad.before(folder)
    places = {
        "folder": folder,
        "data": runs / "walks.parquet",
        "run": folder / "run",
        "rpt": folder / "rpt",
        "new": folder / "new" / "deep",
    }
    for name, value in bad.environment:
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    before = listing(folder)
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ended:
            main([word.format(**places) for word in bad.command.split()])
    finally:
        torch.set_num_threads(threads)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert "Traceback" not in error
    assert len(error) < 4000
    for part in bad.holds:
        assert part in error
    assert listing(folder) == before


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_one_speaks(
    rank: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr("lares.cli._FIRST_SPEAKS_SECONDS", 0)
    with pytest.raises(SystemExit) as ended:
        main(["tarin"])
    assert ended.value.code == 2
    assert bool(capsys.readouterr().err) == (rank == "0")
