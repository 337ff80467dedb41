"""The page of options."""

from __future__ import annotations

from lares.training.config import recipes
from website.options import PAGE, page


def test_the_page_is_of_these_options() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m website.options"


def test_options_and_recipes_are_there() -> None:
    text = page()
    for words in (
        "| `optimizer.lr` | 0.001 | 0.002 | Learning rate. |",
        "| `trainer.remove_history` | false |",
        "| `objective.rollouts` | 4 |",
        *(f"**{name}**" for name in recipes()),
    ):
        assert words in text
