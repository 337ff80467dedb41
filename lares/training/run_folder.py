"""The folder of a run: which file is where."""

from __future__ import annotations

from pathlib import Path

import yaml

from lares.config import CONFIG_FILE
from lares.errors import CheckpointError, ConfigError
from lares.files import atomic_write
from lares.training.config import DataOptions, RunConfig, differing_options, read_config

ITEMS_FILE = "items.json"

# What may change when a run goes on: none of it changes the numbers of the epochs already there.
_MAY_CHANGE = {
    "trainer.max_epochs",
    "trainer.patience",
    "trainer.num_threads",
    "trainer.checkpoint_every_steps",
    "trainer.log_every",
    "trainer.tensorboard",
    "trainer.test_depths",
}


class RunFolder:
    """Names of the files of a run.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.state = path / "checkpoints" / "last.safetensors"
        self.best = path / "best"
        self.items = self.best / ITEMS_FILE
        self.start = path / "start"
        self.samples = self.start / "samples.npy"
        self.metrics = path / "metrics.csv"
        self.timing = path / "timing.csv"
        self.tensorboard = path / "tensorboard"
        self.curves = path / "curves.png"
        self.result = path / "result.json"

    def check(self, config: RunConfig, resume: bool) -> None:
        """See that a run can have the folder, which is left as it is.

        Raises:
            ConfigError: it holds a run already and ``resume`` is not asked for, or it is asked for
                and the options differ from that run's.
        """
        if self.config.exists():
            if not resume:
                raise ConfigError(
                    f"{self.path} holds a run already; give --resume to go on with it, "
                    "or another --out"
                )
            before = read_config(self.config).to_dict()
            changed = set(differing_options(before, config.to_dict())) - _MAY_CHANGE
            if changed:
                raise ConfigError(
                    f"{self.path} was started with other options ({', '.join(sorted(changed))}); "
                    "resume with the same ones, or give another --out"
                )
        elif resume and self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(
                f"{self.path} holds no run to resume (there is no {self.config.name})"
            )

    def prepare(self, config: RunConfig, resume: bool) -> None:
        """Take the folder for a run.

        Raises:
            ConfigError: as :meth:`check`.
        """
        self.check(config, resume)
        with atomic_write(self.config) as temporary:
            temporary.write_text(
                yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8"
            )


def find_model(path: str | Path) -> tuple[Path, DataOptions | None]:
    """Find the folder of a trained model, and how its own run read its data, if it came from a run.

    Args:
        path: a run folder, whose best model is taken, or a folder that ``save_pretrained`` wrote.

    Raises:
        CheckpointError: the folder holds neither.
    """
    folder = Path(path)
    run = RunFolder(folder)
    if run.config.is_file():
        if not run.best.is_dir():
            raise CheckpointError(f"run {folder} has no best model yet: it never validated")
        return run.best, read_config(run.config).data
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{folder} is neither a run folder ({run.config.name}) nor a model folder ({CONFIG_FILE})"
        )
    return folder, None
