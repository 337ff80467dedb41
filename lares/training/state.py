"""The state of a run in one file, written whole: model, Adam, counters.

Every random draw is addressed by seed and step, so there is no generator to save: a run resumed from
this file takes the same steps as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lares.errors import CheckpointError
from lares.model.checkpoint import check_weights
from lares.plain import settle_options
from lares.tensor_files import read_tensors, write_tensors

_METADATA_KEY = "lares_training_state"
_MODEL, _ADAM = "model.", "adam."


@dataclass
class Progress:
    """Tell where a run stands.

    Attributes:
        epoch: epochs completed; step: steps taken in the epoch under way; total_steps: in all.
        sums: running sums of the losses of the epoch under way.
        best: best validation NDCG@10; best_epoch: when; stale: evaluations since.
        seconds: spent training and validating, over all starts.
        parts: seconds by part of a step.
        samples: trained on, over all starts.
        epoch_seconds, epoch_samples: of the steps of the epoch under way.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    epoch_seconds: float = 0.0
    epoch_samples: int = 0


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    config: dict[str, Any],
) -> None:
    """Write the state of a run, whole or not at all.

    Raises:
        CheckpointError: a tensor is not finite, or the disk took no more; the old file survives.
    """
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_ADAM}{key}.{name}"] = value
    content = {"progress": dataclasses.asdict(progress), "config": config}
    write_tensors(path, tensors, {_METADATA_KEY: json.dumps(content)})


def read_progress(path: Path) -> tuple[Progress, dict[str, Any], dict[str, Tensor]]:
    """Progress, configuration and tensors of a state file.

    Raises:
        CheckpointError: the file is missing, broken, or is not the state of a run.
    """
    tensors, metadata = read_tensors(path)
    try:
        content = json.loads(metadata[_METADATA_KEY])
        progress = Progress(**content["progress"])
        settle_options(progress)
        return progress, content["config"], tensors
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not the state of a training run: {error!r}") from error


def restore_state(
    path: Path, tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put saved tensors back into model and optimizer.

    Raises:
        CheckpointError: they do not fit.
    """
    weights = {
        name.removeprefix(_MODEL): tensor
        for name, tensor in tensors.items()
        if name.startswith(_MODEL)
    }
    check_weights(model.state_dict(), weights, path)
    model.load_state_dict(weights)
    parameters = dict(model.named_parameters())
    for saved, tensor in tensors.items():
        key, _, name = saved.removeprefix(_ADAM).partition(".")
        if saved.startswith(_ADAM) and name in parameters:
            parameter = parameters[name]
            shape = torch.Size() if key == "step" else parameter.shape
            if tensor.shape != shape or not tensor.is_floating_point():
                raise CheckpointError(
                    f"{path}: tensor {saved!r} is {tuple(tensor.shape)} of {tensor.dtype}; it must "
                    f"be {tuple(shape)} real numbers"
                )
            # Adam's step counter stays on the CPU, its moments go beside their parameter.
            moved = tensor.clone() if key == "step" else tensor.to(parameter.device)
            optimizer.state[parameter][key] = moved
