"""The folder of a run: which file is where, who may write into it, and which data it belongs to."""

from __future__ import annotations

import contextlib
import csv
import io
import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lares.errors import CheckpointError, ConfigError, DataError
from lares.files import remove_unfinished, write_text
from lares.model.config import CONFIG_FILE
from lares.model.folders import (
    BEST,
    ITEMS_FILE,
    RUN_CONFIG_FILE,
    WEIGHTS_FILE,
    is_run,
    model_folder,
    read_model_config,
)
from lares.names import shell_word
from lares.training.config import DataOptions, RunConfig, differing_options, read_config
from lares.training.data_record import DataRecord
from lares.training.lock import LOCK_FILE, held
from lares.training.options_file import yaml_text

if TYPE_CHECKING:
    from lares.data.dataset import Dataset

_Run = TypeVar("_Run", bound=RunConfig)
# What may change when a run goes on: none of it changes the numbers of the epochs already there.
_MAY_CHANGE = {
    "trainer.max_epochs",
    "trainer.patience",
    "trainer.devices",
    "trainer.num_threads",
    "trainer.checkpoint_every_steps",
    "trainer.log_every",
    "trainer.tensorboard",
    "trainer.test_depths",
    "trainer.test_states",
    "trainer.baselines",
    # Where things lie; that data are the same is seen by their record.
    "data.path",
    "model.text_features",
    "start.checkpoint",
}
_HISTORY = 3  # items of the history that a run proposes to recommend for
_ATTEMPTS = 100  # at a folder that others make and remove at the same time


class RunFolder:
    """Names of the files of a run.

    Args:
        path: of the folder.
        option: that names the folder where it is given, for messages.

    Attributes:
        begun: whether a step was taken or a state saved, so that the folder is worth keeping.
    """

    def __init__(self, path: Path, option: str = "--out") -> None:
        self.path, self.option = path, option
        self.config = path / RUN_CONFIG_FILE
        self.record = path / "data.json"
        self.state = path / "checkpoints" / "last.safetensors"
        self.best = path / BEST
        self.items = self.best / ITEMS_FILE
        self.start = path / "start"
        self.samples = self.start / "samples.npy"
        self.metrics = path / "metrics.csv"
        self.timing = path / "timing.csv"
        self.tensorboard = path / "tensorboard"
        self.curves = path / "curves.png"
        self.result = path / "result.json"
        self.sasrec = path / "baseline-sasrec"
        self.breakdown = path / "breakdown.json"
        self.begun = False
        self._prepared = False
        self._record: DataRecord | None = None

    @contextlib.contextmanager
    def held(self, config: RunConfig, resume: bool) -> Iterator[None]:
        """Be the only writer, for a run that can have the folder.

        What writers that were killed left unfinished is removed; a run that fails before its first step
        leaves nothing, not even folders that were made for it.

        Raises:
            ConfigError: as :meth:`check`, or another process writes to it.
        """
        with self._locked():
            self.check(config, resume)
            if is_run(self.path):  # what lies in another's folder is not ours to remove
                for folder in (self.path, self.best, self.state.parent, self.start):
                    remove_unfinished(folder)
            was_run, there = is_run(self.path), set(self.path.iterdir())
            try:
                yield
            except BaseException:
                if self._prepared and not was_run and not self.begun:
                    self._forget(there)
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Make the folder and those above it, and be the only one there; remove those that stay empty.

        Whoever made a folder removes it, even as another is about to lock it, who makes it anew.
        """
        made: set[Path] = set()
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: _remove_empty(made))
            for attempt in range(_ATTEMPTS):
                self._make_folders(made)
                try:
                    stack.enter_context(held(self.path))
                    break
                except FileNotFoundError as error:
                    if attempt == _ATTEMPTS - 1:
                        raise self._cannot_be_made(error) from error
            yield

    def _make_folders(self, made: set[Path]) -> None:
        """Make the folder and those above it, and add those that were not there to ``made``."""
        path = self.path
        for attempt in range(_ATTEMPTS):
            try:
                made.update(folder for folder in (path, *path.parents) if not folder.exists())
                path.mkdir(parents=True, exist_ok=True)
                return
            except OSError as error:
                # Another may remove an empty folder that was found there, or before one is made in it.
                passing = isinstance(error, FileNotFoundError | FileExistsError)
                if attempt == _ATTEMPTS - 1 or not passing:
                    raise self._cannot_be_made(error) from error

    def _cannot_be_made(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self.path} cannot be made a run folder: {error.strerror or error}; "
            f"give another {self.option}"
        )

    def look(self, config: RunConfig, resume: bool) -> None:
        """See beforehand, and without torch, that a run can have the folder, and leave it as it is.

        Raises:
            ConfigError: as :meth:`held`, or the folder cannot be made.
        """
        with self._locked():
            self.check(config, resume)

    def _forget(self, kept: set[Path]) -> None:
        """Remove what a run writes before its first step, but for what was there before it."""
        for folder in {self.tensorboard, self.start, self.best, self.state.parent} - kept:
            shutil.rmtree(folder, ignore_errors=True)
        for file in {self.config, self.record, self.metrics, self.timing} - kept:
            file.unlink(missing_ok=True)

    def check(self, config: RunConfig, resume: bool) -> None:
        """See that a run can have the folder, which is left as it is.

        Raises:
            ConfigError: it holds a run already and ``resume`` is not asked for, or it is asked for
                and the options differ from that run's; or a file of its is none.
        """
        for path in self._files():
            if path.exists() and not path.is_file():
                raise ConfigError(
                    f"{path} is no file that a run can have there; move it away, or give another "
                    f"{self.option}"
                )
        if self.config.exists():
            if not resume:
                raise ConfigError(
                    f"{self.path} holds a run already; give --resume to go on with it, "
                    "or another --out"
                )
            before = read_config(self.config).to_dict()
            changed = set(differing_options(before, config.to_dict())) - _MAY_CHANGE
            changed -= set(config.left_to_data())
            if self.record.exists():  # how a file is read may change with the file
                changed = {name for name in changed if not name.startswith("data.")}
            if changed:
                raise ConfigError(
                    f"{self.path} was started with other options ({', '.join(sorted(changed))}); "
                    f"resume with the same ones, or give another {self.option}"
                )
        elif resume and self.path.is_dir() and self._others():
            raise ConfigError(
                f"{self.path} holds no run to resume (there is no {self.config.name})"
            )

    def decided(self, config: _Run) -> _Run:
        """Return the options of a run that goes on here, what they leave to the data as it began."""
        if not self.config.exists():
            return config
        began = read_config(self.config).to_dict()
        return config.decided(
            {
                f"{section}.{name}": value
                for section, of in began.items()
                for name, value in of.items()
            }
        )

    def _files(self) -> list[Path]:
        """Return where a run's files lie, be they there or not."""
        return [
            *(self.config, self.record, self.state, self.items, self.best / WEIGHTS_FILE),
            *(self.best / CONFIG_FILE, self.samples, self.metrics, self.timing, self.curves),
            *(self.result, self.breakdown),
        ]

    def _others(self) -> list[Path]:
        """Return what lies there and is not left by a run that was killed as it took the folder."""
        return [
            path for path in self.path.iterdir() if path.name not in (LOCK_FILE, self.record.name)
        ]

    def belong(self, config: RunConfig, dataset: Dataset, source: RunFolder | None = None) -> None:
        """See that data are those that the run began with, and the run before it.

        Runs that are older than records are known by their items alone, or not at all.

        Args:
            config: of the run, which says where the data lie.
            dataset: these data, as they were read.
            source: the run whose model this one starts from, if it is yet to start.

        Raises:
            DataError: they are others.
        """
        self._record = now = DataRecord.of(dataset)

        def differs(record: DataRecord) -> str:
            same_form = now if now.form == record.form else DataRecord.of(dataset, record.form)
            return record.difference(same_form)

        path = config.data.path or dataset.name  # the latter of data in memory
        before = DataRecord.load(self.record)
        difference = ""
        if self.config.exists() and before is not None:
            difference = differs(before)
        elif self.config.exists() and self.items.is_file() and config.COMMAND == "train":
            same = type(dataset.vocabulary).load(self.items).equals(dataset.vocabulary)
            difference = "" if same else "its items are others"
        if difference:
            raise DataError(
                f"{path} is not the data that {self.path} began with: {difference}; give the same data "
                f"(it may have moved), or another {self.option} for a run of its own"
            )
        trained = None if source is None else DataRecord.load(source.record)
        if source is not None and trained is not None and differs(trained):
            raise DataError(
                f"{path} is not the data that {source.path} was trained on: {differs(trained)}; "
                f"to post-train its model on other data give {source.best}"
            )

    def prepare(self, config: RunConfig) -> None:
        """Make the folder, which is :meth:`held`, that of a run on data it may :meth:`belong` to."""
        assert self._record is not None
        if not self.config.exists():  # else the run has a record, or is older than records
            self._record.save(self.record)
        self._prepared = True
        write_text(self.config, yaml_text(config.to_dict()))

    def next_command(self) -> str:
        """Return a line that uses the run's model: for a history of the most popular items, where it
        is known what these are."""
        name = str(self.path)
        place = shell_word(f"./{name}" if name.startswith("-") else name)
        record = DataRecord.load(self.record)
        if record is None or not record.popular:
            return f"lares evaluate {place}"
        written = io.StringIO()
        csv.writer(written, lineterminator="").writerow(record.popular[:_HISTORY])
        history = written.getvalue()
        if not history.isprintable():
            return f"lares evaluate {place}"
        return f"lares recommend {place} --history={shlex.quote(history)}"

    def resume_command(self, command: str) -> str:
        """Return the line that goes on with the run, which ``lares COMMAND`` started."""
        name = str(self.path)
        between = "=" if name.startswith("-") else " "  # else it would be an option
        return f"lares {command} --out{between}{shell_word(name)} --resume"


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders, the innermost first, up to one that holds something."""
    for folder in sorted(folders, key=lambda one: len(one.parts), reverse=True):
        try:
            folder.rmdir()
        except FileNotFoundError:  # another removed it
            continue
        except OSError:  # and so do those above it, or it lies behind them, as y does in x/../y
            return


def find_run(path: str | Path) -> RunFolder | None:
    """Return the run whose folder ``path`` is, if it is one."""
    return RunFolder(Path(path)) if is_run(Path(path)) else None


def find_model(path: str | Path) -> tuple[Path, DataOptions | None]:
    """Find the folder of a trained model, and how its own run read its data, if it came from a run.

    Args:
        path: a run folder, whose best model is taken, or a folder that ``save_pretrained`` wrote.

    Raises:
        CheckpointError: the folder holds neither, or its model cannot be read for what can be told
            without torch.
    """
    run, folder = find_run(path), model_folder(path)
    read_model_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"there is no file {folder / WEIGHTS_FILE}")
    return folder, None if run is None else read_config(run.config).data
