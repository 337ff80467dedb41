"""Say what a run's folder holds, whole or damaged, without torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lares.data.file_names import last_name, stem
from lares.errors import CheckpointError, LaresError
from lares.files import read_json
from lares.model.config import CONFIG_FILE
from lares.model.folders import WEIGHTS_FILE, is_run, read_model_config
from lares.training.breakdown import METRICS
from lares.training.config import RunConfig, TrainConfig, read_config
from lares.training.likeness import Likeness, likeness
from lares.training.lock import is_held
from lares.training.loggers import read_rows
from lares.training.run_folder import RunFolder
from lares_kernels.common.one_number import real_number, whole_number

State = Literal["running", "stopped", "finished", "damaged"]
_VALID = "valid_ndcg@10"  # of metrics.csv
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it


@dataclass(frozen=True)
class Result:
    """Hold what ``result.json`` says that is listed and drawn.

    Attributes:
        test, start: metrics by depth of the best model, and of the one that the run began with.
        valid_best: best validation NDCG@10; best_epoch: when it was reached; epochs: that were run.
        seconds: spent training and validating.
    """

    test: dict[int, dict[str, float]]
    start: dict[int, dict[str, float]]
    valid_best: float
    best_epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class RunSummary:
    """Hold what a run's folder says of the run; of one that is damaged, what can still be told.

    Attributes:
        folder: of the run.
        state: running if a process writes to it, finished if it has a result that no more training is
            asked of, damaged if a file is missing or broken, else stopped.
        reason: what is damaged.
        config: its options; None where they cannot be read.
        likeness: of these options; None where there are none.
        rows: of ``metrics.csv``, one an epoch.
        result: None where there is none yet.
        depth: reasoning depth that it validates at; None where it is not known.
        seconds: spent so far.
        changed: when it last wrote, in seconds since 1970.
    """

    folder: RunFolder
    state: State
    reason: str = ""
    config: RunConfig | None = None
    likeness: Likeness | None = None
    rows: list[dict[str, str]] = field(default_factory=list)
    result: Result | None = None
    depth: int | None = None
    seconds: float | None = None
    changed: float | None = None

    @property
    def kind(self) -> str:
        """The command that made it: train or posttrain; empty where that is not known."""
        return "" if self.config is None else self.config.COMMAND

    @property
    def epochs(self) -> int | None:
        """Epochs that were run; None where it logged nothing."""
        if self.rows:
            return int(self.rows[-1]["epoch"])
        return None if self.result is None else self.result.epochs

    @property
    def best(self) -> tuple[int, float] | None:
        """The best epoch on the validation samples, and its NDCG@10; None where it never validated."""
        measured = validated(self.rows)
        if not measured:
            result = self.result
            return None if result is None else (result.best_epoch, result.valid_best)
        best = max(value for _, value in measured)
        return next((epoch, value) for epoch, value in measured if value == best)

    @property
    def tested(self) -> tuple[int, dict[str, float]] | None:
        """The depth nearest to the trained one that the best model was tested at, and its metrics."""
        if self.result is None or self.depth is None:
            return None
        wanted = self.depth
        depth = min(self.result.test, key=lambda each: (abs(each - wanted), each))
        return depth, self.result.test[depth]

    @property
    def date(self) -> str:
        """When it last wrote, as ``2026-01-31 12:00`` of this machine's clock; empty if unknown."""
        if self.changed is None:
            return ""
        return datetime.fromtimestamp(self.changed).strftime("%Y-%m-%d %H:%M")


def validated(rows: list[dict[str, str]]) -> list[tuple[int, float]]:
    """Return the epochs after which a run validated, and NDCG@10."""
    return [(int(row["epoch"]), float(row[_VALID])) for row in rows if row.get(_VALID)]


def find_runs(folder: Path) -> Iterator[Path]:
    """Give the runs in a folder and in folders within it, damaged ones too, by name; itself if one.

    Hidden folders are left out, and so are folders behind symbolic links that are no runs.
    """
    for name, folders, _ in os.walk(folder):
        path = Path(name)
        if _seems_a_run(path):
            yield path
            folders.clear()
            continue
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for each in folders:  # which os.walk does not follow
            if (path / each).is_symlink() and _seems_a_run(path / each):
                yield path / each


def _seems_a_run(path: Path) -> bool:
    run = RunFolder(path)
    try:
        return (
            is_run(path) or run.state.is_file() or (run.metrics.is_file() and run.timing.is_file())
        )
    except OSError:  # of folders that are not ours to read
        return False


def summary_of(path: Path) -> RunSummary:
    """Return what a run's folder says of the run; what is broken there is said, never raised."""
    run = RunFolder(path)
    known: dict[str, Any] = {"changed": _last_written(run)}
    reasons: list[str] = []

    def read(name: str, action: Any) -> Any:
        """Note what an action gives; where it raises, why."""
        try:
            known[name] = action()
        except (LaresError, OSError) as error:
            reasons.append(" ".join(str(error).split()))
        return known.get(name)

    config = read("config", lambda: _config(run))
    if config is not None:
        known["likeness"] = likeness(config)
    rows = read("rows", lambda: _rows(run.metrics)) or []
    result = read("result", lambda: _result(run.result))
    read("seconds", lambda: _seconds(run, result))
    read("depth", lambda: _depth(run, config))
    read("whole", lambda: _require_whole_files(run, bool(validated(rows))))
    known.pop("whole", None)
    state: State = "stopped"
    if is_held(path):
        state = "running"
    if reasons:
        state = "damaged"
    elif state == "stopped" and config is not None and _is_finished(config, rows, result):
        state = "finished"
    return RunSummary(run, state, "; ".join(dict.fromkeys(reasons)), **known)


def _config(run: RunFolder) -> RunConfig:
    if not run.config.is_file():
        raise CheckpointError(f"there is no file {run.config}")
    try:
        return read_config(run.config)
    except LaresError as error:
        named = str(run.config) in str(error)
        raise CheckpointError(str(error) if named else f"{run.config}: {error}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of ``metrics.csv``, whose cells are numbers or empty."""
    rows = read_rows(path)
    for row in rows:
        for name, cell in row.items():
            try:
                finite = not cell or math.isfinite(float(cell))
            except ValueError:
                finite = False
            if not finite:
                raise CheckpointError(
                    f"{path} is damaged (epoch {row['epoch']} has {cell!r} for its {name})"
                )
    return rows


def _result(path: Path) -> Result | None:
    """Return the result in a file; None if there is none.

    Raises:
        CheckpointError: the file is broken.
    """
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        test, start = (
            {int(depth): _metrics(held) for depth, held in content[part].items()}
            for part in ("test", "start")
        )
        if not test:
            raise ValueError("no depth was tested")
        return Result(
            test,
            start,
            real_number("valid_best", content["valid_best"]),
            whole_number("best_epoch", content["best_epoch"]),
            whole_number("epochs", content["epochs"]),
            real_number("seconds", content["seconds"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no result of a run: {error!r}") from error


def _metrics(held: Mapping[str, Any]) -> dict[str, float]:
    return {name: real_number(name, held[name]) for name in METRICS}


def _seconds(run: RunFolder, result: Result | None) -> float | None:
    """Return what the run spent so far: what its epochs took, which are those of a result, too."""
    rows = _rows(run.timing)
    if not rows:
        return None if result is None else result.seconds
    spent = sum(
        float(row.get(f"{part}_seconds") or 0) for row in rows for part in ("train", "valid")
    )
    return round(spent, 1)


def _depth(run: RunFolder, config: RunConfig | None) -> int | None:
    """Return the depth that a run validates at."""
    if (run.best / CONFIG_FILE).is_file():
        model = read_model_config(run.best)
    elif isinstance(config, TrainConfig):
        model = config.model_config(2)
    else:
        return None
    return model.mean_depth if model.is_recurrent else 0


def _require_whole_files(run: RunFolder, has_best: bool) -> None:
    """Raise ``CheckpointError`` if the best model is missing, or a file of tensors is cut off."""
    files = [run.best / CONFIG_FILE, run.best / WEIGHTS_FILE] if has_best else []
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}")
    for path in (run.best / WEIGHTS_FILE, run.state):
        if path.is_file():
            _require_whole(path)


def _require_whole(path: Path) -> None:
    """Raise ``CheckpointError`` if a safetensors file does not end where its header says."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("its header has no end")
            header = json.loads(file.read(length))
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt ({error})") from error
    if size != 8 + length + max(ends, default=0):
        raise CheckpointError(
            f"{path} is truncated or corrupt ({size:,} bytes instead of "
            f"{8 + length + max(ends, default=0):,})"
        )


def _is_finished(config: RunConfig, rows: list[dict[str, str]], result: Result | None) -> bool:
    """Return whether a run has the result of all its epochs, and would train no more."""
    if result is None:
        return False
    epochs = int(rows[-1]["epoch"]) if rows else result.epochs
    stale, best = 0, -1.0
    for _, value in validated(rows):
        best, stale = (value, 0) if value > best else (best, stale + 1)
    options = config.trainer
    over = epochs >= options.max_epochs or stale >= options.patience
    return result.epochs == epochs and (over or not rows)


def _last_written(run: RunFolder) -> float | None:
    """Return when the run last wrote what tells of its epochs."""
    times = []
    for path in (run.config, run.metrics, run.result, run.state):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def shown_name(path: Path, folder: Path) -> str:
    """Return what a run in ``folder`` is called there: its path from there."""
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    return path.resolve().name if relative == Path() else str(relative)


def data_name(config: RunConfig) -> str:
    """Return what a run's data are called: their file's or folder's name, without a file's suffix."""
    path = config.data.path
    return stem(Path(last_name(Path(path)))) if path else "in memory"
