"""Saved models: a folder with ``config.json`` and ``model.safetensors``, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lares.config import CONFIG_FILE, LaresConfig
from lares.errors import CheckpointError, ConfigError
from lares.files import atomic_write

WEIGHTS_FILE = "model.safetensors"


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of a floating tensor that holds a NaN or an infinity, if there is one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole, or leave the one that is there.

    Raises:
        CheckpointError: a tensor is not finite, or the disk took no more.
    """
    broken = first_non_finite(tensors)
    if broken is not None:
        raise CheckpointError(f"tensor {broken!r} holds NaN or infinity; {path} was not written")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as temporary:
            save_file(contiguous, temporary, metadata=dict(metadata))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({error}); what was there before is untouched"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or not a safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated or corrupt ({error}); restore it from a copy or train again"
        ) from error


def save_model(weights: Mapping[str, Tensor], config: LaresConfig, folder: Path) -> None:
    """Write weights and configuration into ``folder``, each file whole or not at all.

    Raises:
        CheckpointError: a weight is not finite, or a file could not be written.
    """
    write_tensors(folder / WEIGHTS_FILE, weights, {"format": "pt"})
    write_json(folder / CONFIG_FILE, config.to_dict())


def load_model(folder: Path) -> tuple[LaresConfig, dict[str, Tensor]]:
    """Configuration and weights of a saved model.

    Raises:
        CheckpointError: a file is missing, broken, or does not fit the other.
    """
    options = read_json(folder / CONFIG_FILE)
    try:
        config = LaresConfig.from_dict(options)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
    weights, _ = read_tensors(folder / WEIGHTS_FILE)
    broken = first_non_finite(weights)
    if broken is not None:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: tensor {broken!r} holds NaN or infinity; the model is unusable"
        )
    return config, weights


def check_weights(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path
) -> None:
    """Raise ``CheckpointError`` unless ``weights`` have the names and shapes of ``expected``."""
    missing = sorted(set(expected) - set(weights))
    unknown = sorted(set(weights) - set(expected))
    if missing or unknown:
        raise CheckpointError(
            f"{path} does not fit its configuration: missing {missing or 'none'}, "
            f"unknown {unknown or 'none'}"
        )
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(weights[name].shape)}; the configuration "
                f"needs {tuple(tensor.shape)}"
            )


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole, or leave the one that is there."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written ({error}); what was there before is untouched"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ``CheckpointError`` if it is missing or broken."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content
