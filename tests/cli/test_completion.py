"""What shells read to complete the command line."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from lares.cli import COMMANDS, main
from lares.cli.completion import SHELLS
from tests.cli.failing import fails


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["completion", shell])
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_there(shell: str, capsys) -> None:
    text = script(shell, capsys)
    for word in (*COMMANDS, "info", "optimizer.lr", "data.where", "remove_history", "jsonl"):
        assert word in text


def completed(text: str, line: str) -> set[str]:
    """What bash offers for a line that ends within its last word."""
    words = line.split(" ")
    asked = (
        f"{text}\nCOMP_WORDS=({' '.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
        '_shtab_lares; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes(capsys) -> None:
    text = script("bash", capsys)
    assert completed(text, "lares e") == {"evaluate"}
    assert completed(text, "lares data i") == {"info"}
    assert completed(text, "lares train --optimizer.l") == {"--optimizer.lr"}
    assert completed(text, "lares train x.csv --data.repeats con") == {"consecutive"}


def test_an_unknown_shell_is_refused(capsys) -> None:
    assert "SHELL is 'cmd'; it must be one of bash, " in fails(capsys, "completion", "cmd")
