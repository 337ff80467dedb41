"""Links and headings of pages are found as GitHub and the site find them."""

from __future__ import annotations

import pytest

from website.anchors import Link, anchors, links, slug, with_links

PAGE = """\
# One `code` & two

See [a](a.md), [b](../b.md#part-two) and [here](#one-code--two); not [there](https://example.org/c.md).
`[code](no.md)` is code.

```sh
# no heading
[no](no.md)
```

## [Linked](c.md) heading!
<a id="given"></a> <img src="p.svg">

## One `code` & two
"""


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Initial states, and what metrics depend on", "initial-states-and-what-metrics-depend-on"),
        ("Python 3.10 / `lares train`", "python-310--lares-train"),
        ("`--data.user_column`", "--datauser_column"),
        ("**Bold** and [a link](x.md)", "bold-and-a-link"),
        ("Größe", "größe"),
    ],
)
def test_an_anchor_is_that_of_github(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


def test_headings_and_given_ids_are_anchors_and_code_is_none() -> None:
    assert anchors(PAGE) == ["one-code--two", "linked-heading", "given", "one-code--two"]


def test_links_into_the_tree_are_found_outside_of_code() -> None:
    assert links(PAGE) == [
        Link("a.md", ""),
        Link("../b.md", "part-two"),
        Link("", "one-code--two"),
        Link("c.md", ""),
        Link("p.svg", ""),
    ]


def test_links_are_changed_outside_of_code() -> None:
    changed = with_links(PAGE, {"a.md": "z.md", "no.md": "z.md", "p.svg": "q.svg"})
    assert changed == PAGE.replace("(a.md)", "(z.md)").replace('"p.svg"', '"q.svg"')


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert anchors("````\n```\n# no\n```\n# no\n````\n# yes\n") == ["yes"]
