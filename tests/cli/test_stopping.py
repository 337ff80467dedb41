"""Ctrl-C while a command loads its libraries: it ends there, whatever they make of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lares.cli.stopping import stops_while_loading

# What compiled modules do that import another one.
SWALLOWS = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    pass
open("went on", "w").close()
"""
SET_NAME = """
import signal
class Field:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGINT)
class Options:
    field = Field()
"""
COMMANDS = ("data info plain.csv", "evaluate model plain.csv", "recommend model --history 3")


def ended(folder: Path, command: str, library: str, code: str, rank: str) -> tuple[int, str]:
    """Exit status of a command and what it says, where ``code`` is a library's."""
    (folder / library).mkdir(parents=True)
    (folder / library / "__init__.py").write_text(code)
    (folder / "plain.csv").write_text("user_id,item_id\n1,2\n1,3\n1,4\n")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"n_items": 5}')
    (folder / "model" / "model.safetensors").write_text("")
    path = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "lares", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "LOCAL_RANK": rank},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not (folder / "went on").exists()
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "library"),
    [(c, "numpy") for c in COMMANDS]
    + [(c, "torch") for c in COMMANDS if not c.startswith("data")],  # which needs none
)
def test_a_library_that_drops_the_interrupt(command: str, library: str, tmp_path: Path) -> None:
    assert ended(tmp_path, command, library, SWALLOWS, "0") == (130, "stopped\n")


@pytest.mark.parametrize("library", ["jsonargparse", "numpy"])
def test_a_class_that_is_made_of_an_interrupt(library: str, tmp_path: Path) -> None:
    """Before Python 3.12 what ``__set_name__`` raises becomes another error."""
    assert ended(tmp_path, COMMANDS[0], library, SET_NAME, "0") == (130, "stopped\n")


def test_of_several_processes_one_says_so(tmp_path: Path) -> None:
    assert ended(tmp_path, COMMANDS[0], "numpy", SWALLOWS, "1") == (130, "")


def test_at_any_other_time_it_is_raised() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stops_while_loading(True):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with stops_while_loading(True):  # one handler
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_the_program_is_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stops_while_loading(True):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
