"""Where a trained model lies: in a model folder, or in a run folder, whose best model it is.

Without torch: the command line tells a wrong folder before it loads anything.
"""

from __future__ import annotations

from pathlib import Path

from lares.config import CONFIG_FILE
from lares.errors import CheckpointError

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
