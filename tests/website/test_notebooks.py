"""A notebook is a page of the site: text, code and what it gave."""

from __future__ import annotations

import json

import pytest

from website.notebooks import page

OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": ["\x1b[31mred\x1b[0m\n", "line\n"]},
    {
        "output_type": "display_data",
        "data": {"image/png": "QUJD\nRA==\n", "text/plain": "<Figure>"},
    },
    {"output_type": "execute_result", "data": {"text/html": "<b>3</b>", "text/plain": ["3"]}},
    {"output_type": "error", "traceback": ["Traceback", "ValueError: no"]},
]
CELLS = [
    {"cell_type": "markdown", "source": ["# Title\n", "text"]},
    {"cell_type": "code", "source": "print('```')", "outputs": OUTPUTS},
    {"cell_type": "code", "source": "", "outputs": []},
    {"cell_type": "raw", "source": "raw"},
]


def test_a_page_has_text_code_and_outputs() -> None:
    assert page(json.dumps({"nbformat": 4, "cells": CELLS})) == (
        "# Title\ntext\n\n"
        "````python\nprint('```')\n````\n\n"
        "```text\nred\nline\n```\n\n"
        "![output](data:image/png;base64,QUJDRA==)\n\n"
        "```text\n3\n```\n\n"
        "```text\nTraceback\nValueError: no\n```\n"
    )


@pytest.mark.parametrize("text", ["[]", '{"nbformat": 3, "worksheets": []}'])
def test_what_is_no_notebook_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="nbformat 4"):
        page(text)
