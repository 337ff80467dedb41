"""Options that were spelled otherwise: the old spelling works and warns, help shows the new one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lares.cli import data, main, recommend, train
from lares.cli.options import OptionParser
from tests.cli.failing import fails

EMBED = ("items.csv", "--model=m")
CASES = [
    # parser, other words, old spelling, new spelling, its value
    (data.embed_parser, EMBED, "--out", "--output", "x.safetensors"),
    (recommend.build_parser, ("run", "--history=3"), "--keep-seen", "--keep_history", None),
    (recommend.build_parser, ("run", "--history=3"), "--keep_seen", "--keep_history", None),
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
    ("option", "former", "now"), [("scores", "cos", "cosine"), ("core", "fmlp", "filter")]
)
@pytest.mark.parametrize("command", ["{}={}", "{} {}"])
def test_a_choice_of_a_former_name_works_and_warns(
    command: str, option: str, former: str, now: str, capsys
) -> None:
    words = command.format(f"--model.{option}", former).split()
    config, _ = train.parse(["walks.csv", *words, "--trainer.seed=3"])
    assert (config.model[option], config.trainer.seed) == (now, 3)
    warned = capsys.readouterr().err.splitlines()
    assert set(warned) == {
        f"warning: --model.{option}={former} is now spelled --model.{option}={now}"
    }


def test_a_file_may_have_a_choice_of_a_former_name(tmp_path, capsys) -> None:
    (tmp_path / "c.yaml").write_text("model: {scores: cos, core: fmlp}\n")
    config, _ = train.parse(["walks.csv", f"--config={tmp_path / 'c.yaml'}", "--trainer.seed=3"])
    assert (config.model["scores"], config.model["core"]) == ("cosine", "filter")


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
