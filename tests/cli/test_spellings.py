"""Options that were spelled otherwise: the old spelling works and warns, help shows the new one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lares.cli import data, main, recommend
from lares.cli.options import OptionParser
from tests.cli.failing import fails

EMBED = ("items.csv", "--model=m")
CASES = [
    # parser, other words, old spelling, new spelling, its value
    (data.embed_parser, EMBED, "--out", "--output", "x.safetensors"),
    (recommend.build_parser, ("run", "--history=3"), "--keep-seen", "--keep_seen", None),
]
each_case = pytest.mark.parametrize(("parser", "words", "old", "new", "value"), CASES)


def spelled(flag: str, value: str | None) -> list[list[str]]:
    """Return the ways to write an option."""
    return [[flag]] if value is None else [[flag, value], [f"{flag}={value}"]]


@each_case
def test_an_old_spelling_works_and_warns(
    parser: Callable[[], OptionParser],
    words: tuple[str, ...],
    old: str,
    new: str,
    value: str | None,
    capsys,
) -> None:
    for option in spelled(old, value):
        for line in ([*option, *words], [*words, *option], [*option, *words, *option]):
            found = parser().parse_args(line)
            assert found[new.lstrip("-")] == (True if value is None else value)
            printed = capsys.readouterr()
            assert printed.out == ""
            assert printed.err.count("\n") == 1, "one line, however often it is given"
            assert printed.err.startswith(f"warning: {old} is now spelled {new}")


@each_case
def test_the_new_spelling_is_silent(
    parser: Callable[[], OptionParser],
    words: tuple[str, ...],
    old: str,
    new: str,
    value: str | None,
    capsys,
) -> None:
    for option in spelled(new, value):
        found = parser().parse_args([*words, *option])
        assert found[new.lstrip("-")] == (True if value is None else value)
        assert capsys.readouterr() == ("", "")


@each_case
def test_help_shows_the_new_spelling_alone(
    parser: Callable[[], OptionParser],
    words: tuple[str, ...],
    old: str,
    new: str,
    value: str | None,
) -> None:
    told = parser().format_help().replace("[", " ").replace("]", " ").split()
    assert new in told
    assert old not in told


@pytest.mark.parametrize(
    "words",
    [
        ("recommend", "run", "--history=3", "--", "--keep-seen"),
        ("train", "walks.csv", "--keep-seen"),
        ("data", "get", "ml-100k", "--output=x"),
        ("data", "info", "walks.csv", "--out=x"),
    ],
)
def test_other_commands_have_no_such_spelling(words: tuple[str, ...], capsys) -> None:
    fails(capsys, *words)


def test_what_is_wrong_is_told_by_the_new_spelling(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["data", "embed", *EMBED, "--out", str(tmp_path)])
    warning, error, rest = capsys.readouterr().err.split("\n")
    assert warning.startswith("warning: --out is now spelled --output")
    assert error.startswith("error: --output ")
    assert rest == ""
