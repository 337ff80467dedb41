"""How help is written, what it says of defaults, and what is said of an argument that is missing."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing

import pytest

from lares.cli import COMMANDS, main
from lares.cli.completion import command_parsers
from lares.cli.examples import EXAMPLES
from lares.training.config import DEFAULT_RECIPE, RECIPES_FOLDER, DataOptions, SamplingOptions
from lares.training.options_file import read_yaml
from tests.cli.failing import fails

PARSERS = dict(command_parsers())
# Of Sphinx and Markdown: roles, text in backticks, names of modules.
MARKUP = re.compile(r":\w+:`|`|\blares(_kernels)?\.\w")
SENTENCE = re.compile(r"[A-Z].*[.]", re.DOTALL)


def test_every_command_is_looked_at() -> None:
    assert {command.split()[0] for command in PARSERS} == set(COMMANDS)


@pytest.mark.parametrize("command", PARSERS)
def test_help_is_in_sentences(command: str) -> None:
    parser = PARSERS[command]
    for action in parser._actions:
        name, said = (action.option_strings or [action.metavar])[0], str(action.help)
        if name != "-h":  # argparse's own, which jsonargparse puts otherwise
            assert SENTENCE.fullmatch(said), f"{name}: {said}"
            assert not said.startswith("Of "), f"{name}: {said}"
    assert SENTENCE.fullmatch(str(parser.description))
    assert not MARKUP.search(parser.format_help())


def test_summaries_are_sentences() -> None:
    assert all(SENTENCE.fullmatch(summary) for summary in COMMANDS.values())


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, str]:
    """What is said of each option or argument, by its name."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    printed = capsys.readouterr().out
    found = re.findall(r"^  (-?-?[A-Za-z][\w.]*)((?:.*\n)(?:    .*\n)*)", printed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_default_is_said_once(command: str, capsys) -> None:
    if command == "data":
        return
    for name, text in help_of(capsys, command).items():
        assert name.startswith("-") or "null" not in text
        assert len(re.findall("default:", text, re.IGNORECASE)) <= 1, f"{name}: {text}"


@pytest.mark.parametrize("command", PARSERS)
def test_choices_stand_beside_an_option_alone(command: str) -> None:
    parser = PARSERS[command]
    assert "Literal" not in parser.format_help()
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        if typing.get_origin(kind) is typing.Literal:
            assert action.metavar == "{" + ",".join(typing.get_args(kind)) + "}"
            assert ", ".join(typing.get_args(kind)[:3]) not in action.help


@pytest.mark.parametrize("field", dataclasses.fields(DataOptions), ids=lambda field: field.name)
def test_data_of_post_training_are_read_as_the_run_did(field, capsys) -> None:
    """As its help says; train's says what it does itself."""
    if field.name == "path":
        assert "Default: the run's." in help_of(capsys, "posttrain")["DATA"]
        return
    name = f"--data.{field.name}"
    assert "Default: the run's." in help_of(capsys, "posttrain")[name]
    usual = "" if field.default is None else str(field.default)
    ending = f"Default: {usual.lower() if field.type == 'bool' else usual}." if usual else ""
    assert help_of(capsys, "train")[name].endswith(ending)


def test_other_options_of_post_training_have_their_own(capsys) -> None:
    told = help_of(capsys, "posttrain")
    assert told["--objective.rollouts"].endswith("Default: 4.")
    assert told["--trainer.seed"].endswith("Default: 2025.")


def test_defaults_of_train_are_those_of_its_recipe(capsys) -> None:
    told = help_of(capsys, "train")
    recipe = read_yaml(RECIPES_FOLDER / f"{DEFAULT_RECIPE}.yaml")
    assert recipe["sampling"]["samples"] != SamplingOptions().samples
    assert told["--sampling.samples"].endswith(f"Default: {recipe['sampling']['samples']}.")


@pytest.mark.parametrize("command", PARSERS)
def test_help_begins_with_what_to_type_and_ends_with_examples(command: str) -> None:
    text = PARSERS[command].format_help()
    assert re.match(rf"usage: lares {command}( \[?[A-Z_]+\]?)* \[OPTIONS\]\n", text)
    for typed, said in EXAMPLES[command]:
        assert f"\n  {typed}\n      {said}" in text


EXAMPLE_LINES = [(command, typed) for command, all in EXAMPLES.items() for typed, _ in all]


@pytest.mark.parametrize(("command", "typed"), EXAMPLE_LINES)
def test_examples_can_be_typed(command: str, typed: str) -> None:
    words = shlex.split(typed)
    assert words[: 1 + len(command.split())] == ["lares", *command.split()]
    PARSERS[command].parse_args(words[1 + len(command.split()) :])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--d_model", "'--model.d_model'"),
        ("--lr", "'--optimizer.lr'"),
        ("--epochs", "'--trainer.max_epochs'"),
        ("--batch-size", "'--optimizer.batch_size'"),
        ("--model.epochs", "'--trainer.max_epochs'"),
        ("--patience=3", "'--trainer.patience'"),
        ("--dropuot", "'--model.dropout'"),
    ],
)
def test_an_option_without_its_section_is_found(given: str, meant: str, capsys) -> None:
    assert fails(capsys, "train", "x.csv", given, "1").endswith(f"did you mean {meant}?\n")


def test_what_is_like_nothing_is_no_page_of_options(capsys) -> None:
    message = fails(capsys, "train", "x.csv", "--qqqq", "1")
    assert message == "error: unknown option --qqqq; see lares train --help\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("posttrain", "no model: give CHECKPOINT, run folder or model folder to start from"),
        ("posttrain --trainer.seed=3", "no model: give CHECKPOINT"),
        ("posttrain --resume", "--resume needs --out RUN"),
        ("train", "no data: give DATA, file or folder of interactions"),
        ("evaluate", "RUN_OR_MODEL is missing: give run folder, or a saved model's"),
        ("recommend --history=3", "RUN_OR_MODEL is missing"),
        ("data info", "DATA is missing: give file or folder of interactions"),
        ("data get", "NAME is missing: give data set: ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, "),
        ("data embed x", "--model is missing: give name of a sentence-transformers model"),
        ("data embed --model x", "ITEMS is missing"),
    ],
)
def test_what_is_missing_is_said(command: str, said: str, capsys) -> None:
    assert fails(capsys, *command.split()).startswith(f"error: {said}")
