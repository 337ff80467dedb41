"""Options in YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from lares.errors import ConfigError

_LONGEST = 1_000_000  # letters of a file of options


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does; PyYAML goes by YAML 1.1, to which it is text.

    What the two take for different numbers (``1:30`` is 90 to one, ``010`` is 8) is refused, and so is
    an option that stands in a mapping twice.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        names: dict[str, Any] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first = names.setdefault(key.value, key).start_mark
                if first is not key.start_mark:
                    what = f"{key.value!r} stands there twice, first"
                    raise ConstructorError(what, first, "and again", key.start_mark)
        return node

    def number(self, node: Any) -> Any:
        """Return the number of a scalar that looks like one."""
        if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
            problem = (
                f"{node.value!r} is not the same number to all programs; write its digits plainly, "
                "or text in quotes"
            )
            raise ConstructorError(None, None, problem, node.start_mark)
        whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


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
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)  # a device may have no end
        if len(text) > _LONGEST:
            raise ConfigError(
                f"{path} has more than {_LONGEST:,} letters; it is no file of options"
            )
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
