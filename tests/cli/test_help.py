"""How help is written, what it says of defaults, and what is said of an argument that is missing."""

from __future__ import annotations

import dataclasses
import re
import typing

import pytest

from lares.cli import (
    COMMANDS,
    data,
    demo,
    doctor,
    evaluate,
    main,
    plot,
    posttrain,
    recommend,
    runs,
    train,
)
from lares.training.config import DataOptions
from tests.cli.failing import fails

PARSERS = {
    "train": train.COMMAND.parser,
    "posttrain": posttrain.COMMAND.parser,
    "evaluate": evaluate.build_parser,
    "recommend": recommend.build_parser,
    "runs": runs.build_parser,
    "plot": plot.build_parser,
    "data get": data.get_parser,
    "data info": data.info_parser,
    "data embed": data.embed_parser,
    "demo": demo.build_parser,
    "doctor": doctor.build_parser,
}
# Of Sphinx and Markdown: roles, text in backticks, names of modules.
MARKUP = re.compile(r":\w+:`|`|\blares(_kernels)?\.\w")
SENTENCE = re.compile(r"[A-Z].*[.]", re.DOTALL)


def test_every_command_is_looked_at() -> None:
    assert {command.split()[0] for command in PARSERS} == set(COMMANDS)


@pytest.mark.parametrize("command", PARSERS)
def test_help_is_in_sentences(command: str) -> None:
    parser = PARSERS[command]()
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
    parser = PARSERS[command]()
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
    usual = "null" if field.default is None else str(field.default)
    name = f"--data.{field.name}"
    assert f"Default: the run's, else {usual}." in help_of(capsys, "posttrain")[name]
    assert f"default: {usual})" in help_of(capsys, "train")[name]


def test_other_options_of_post_training_have_their_own(capsys) -> None:
    told = help_of(capsys, "posttrain")
    assert "default: 4)" in told["--objective.rollouts"]
    assert "default: 2025)" in told["--trainer.seed"]


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
