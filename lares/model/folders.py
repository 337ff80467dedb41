"""Find a trained model: in a model folder, or in a run folder, whose best model it is.

Without torch: the command line tells a wrong folder before it loads anything.
"""

from __future__ import annotations

from pathlib import Path

from lares.errors import CheckpointError, ConfigError
from lares.files import read_json
from lares.model.config import CONFIG_FILE, MOST_SEED, LaresConfig
from lares.plain import whole

WEIGHTS_FILE = "model.safetensors"
ITEMS_FILE = "items.json"
RUN_CONFIG_FILE = "config.yaml"
BEST = "best"


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` is a run's."""
    return (folder / RUN_CONFIG_FILE).is_file()


def model_folder(path: str | Path) -> Path:
    """Return the folder of the model that ``path`` stands for: itself, or ``best`` of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(path)
    if is_run(folder):
        best = folder / BEST
        if not (best / CONFIG_FILE).is_file():
            raise CheckpointError(f"run {folder} has no best model yet: it never validated")
        return best
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{folder} is neither a run folder ({RUN_CONFIG_FILE}) nor a model folder ({CONFIG_FILE})"
        )
    return folder


def seed_of_run(folder: Path) -> int:
    """Return the seed of the run whose folder it is, for a model that does not say its own; else 0.

    Raises:
        CheckpointError: the run's file of options is broken.
    """
    if not is_run(folder):
        return 0
    import yaml  # most folders do without

    path = folder / RUN_CONFIG_FILE
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
        return whole("trainer.seed", options["trainer"]["seed"], 0, MOST_SEED)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not say the run's seed: {reason}") from error


def read_model_config(folder: Path) -> LaresConfig:
    """Return the configuration of the model in a model folder.

    Raises:
        CheckpointError: the file is missing or broken.
    """
    options = read_json(folder / CONFIG_FILE)
    try:
        return LaresConfig.from_dict(options)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
