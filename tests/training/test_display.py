"""The bar of a run: on a terminal and in a notebook, and nowhere else."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lares.training.display import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_notebook(application: str) -> SimpleNamespace:
    """IPython, as a program that has been started by it finds it."""
    shell = SimpleNamespace(config={application: {}})
    return SimpleNamespace(get_ipython=lambda: shell)


@pytest.mark.parametrize(
    ("stream", "ipython", "drawn"),
    [
        (Terminal, None, True),
        (io.StringIO, None, False),
        (io.StringIO, a_notebook("IPKernelApp"), True),
        (io.StringIO, a_notebook("TerminalIPythonApp"), False),
        (io.StringIO, SimpleNamespace(get_ipython=lambda: None), False),
    ],
    ids=["terminal", "file", "notebook", "ipython into a file", "imported alone"],
)
def test_where_a_bar_is_drawn(
    stream: type[io.StringIO],
    ipython: SimpleNamespace | None,
    drawn: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", shown := stream())
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    for wanted in (True, False):
        with Display(wanted, 5).bar(2, 100, 0) as bar:
            bar.update(50)
        assert ("epoch 2/5" in shown.getvalue()) == (drawn and wanted)
        shown.truncate(0)


NOTEBOOK = """
import sys
from types import SimpleNamespace

sys.modules["IPython"] = SimpleNamespace(
    get_ipython=lambda: SimpleNamespace(config={"IPKernelApp": {}})
)
sys.modules["ipykernel.zmqshell"] = SimpleNamespace()
sys.modules["ipywidgets"] = None

from lares.training.display import Display

with Display(True, 5).bar(2, 100, 0):
    pass
"""


def test_a_notebook_without_widgets_gets_a_bar_of_text_and_no_advice() -> None:
    """tqdm, where it is imported, warns that ipywidgets are missing; nobody needs them."""
    shown = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=True
    )
    assert "epoch 2/5" in shown.stderr
    assert "ipywidgets" not in shown.stderr
    assert not shown.stdout
