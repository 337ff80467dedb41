"""The page of options, from the classes that hold them: ``python -m website.options``.

Writes docs/reference/options.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docstring_parser

from lares.training.config import (
    DEFAULT_RECIPE,
    RECIPES_FOLDER,
    PosttrainConfig,
    RunConfig,
    TrainConfig,
    recipes,
)
from lares.training.options_file import read_yaml

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "options.md"
_TOP = f"""# Options

Every option of `lares train` and `lares posttrain`, by section. On the command line an option is
`--section.option`; in a file of options (`--config`) and in Python
(`Recommender(model={{"d_model": 128}})`) it stands below its section. `default` is the value where no
recipe names another, `{DEFAULT_RECIPE}` that of the recipe from which `lares train` and `Recommender`
start. `python -m website.options` writes this page.
"""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else '""' if value == "" else str(value)


def _table(section: str, kind: type, recipe: dict[str, Any] | None) -> Iterator[str]:
    about: dict[str, str] = {}
    for each in reversed(kind.__mro__):  # what a class adds overrides what it inherits
        described = docstring_parser.parse(each.__doc__ or "").params
        about |= {of.arg_name: " ".join((of.description or "").split()) for of in described}
    columns = ["option", "default", *([DEFAULT_RECIPE] if recipe is not None else []), "meaning"]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for field in dataclasses.fields(kind):
        if field.name in ("n_items", "path", "checkpoint"):  # arguments, and what the data decide
            continue
        usual = field.default
        if field.default_factory is not dataclasses.MISSING:
            usual = field.default_factory()
        cells = [f"`{section}.{field.name}`", _shown(usual)]
        if recipe is not None:
            cells.append(_shown(recipe[field.name]) if field.name in recipe else "")
        yield "| " + " | ".join([*cells, about[field.name].replace("|", "\\|")]) + " |"


def _sections(config: type[RunConfig], recipe: dict[str, Any] | None) -> Iterator[str]:
    for name, kind in config.SECTIONS.items():
        yield f"\n### {config.COMMAND}: {name}\n"
        yield from _table(name, kind, None if recipe is None else recipe.get(name) or {})


def page() -> str:
    """Return the text of the page."""
    quick = read_yaml(RECIPES_FOLDER / f"{DEFAULT_RECIPE}.yaml")
    # Sections that post-training shares with training stand there.
    own = {
        name: kind
        for name, kind in PosttrainConfig.SECTIONS.items()
        if TrainConfig.SECTIONS.get(name) is not kind
    }
    lines = [_TOP, "## Training", *_sections(TrainConfig, quick), "\n## Post-training\n"]
    lines.append("The sections data, sampling and trainer are those of training.")
    for name, kind in own.items():
        lines += [f"\n### posttrain: {name}\n", *_table(name, kind, None)]
    lines += ["\n## Recipes\n", "What each names; all else is at its default.\n"]
    for name in recipes():
        lines += [
            f"**{name}**\n",
            "```yaml",
            (RECIPES_FOLDER / f"{name}.yaml").read_text().rstrip(),
            "```\n",
        ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
