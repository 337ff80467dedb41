"""Options in YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lares.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does; PyYAML goes by YAML 1.1, to which it is text."""


class _Dumper(yaml.SafeDumper):
    """Writes text that :class:`_Loader` would take for a number in quotes."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def yaml_text(options: dict[str, Any]) -> str:
    """Return options as :func:`read_yaml` reads them."""
    return str(yaml.dump(options, Dumper=_Dumper, sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the options in a YAML file.

    Raises:
        ConfigError: the file is missing or is not a mapping in YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, _Loader)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Of the last two: a date that does not exist, numbers of thousands of digits, thousands of [.
        place = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML that can be read: {place}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}; it must hold options by section")
    return content
