"""The bar of a run: on a terminal and in a notebook, and nowhere else."""

from __future__ import annotations

import io
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
