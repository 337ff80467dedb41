"""Conditions on rows as text: ``rating >= 4 and event in ('view', 'buy')``, and bounds of time.

Nothing here imports numpy or Arrow: options are checked before data are read.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lares.errors import ConfigError
from lares.names import shown

Repeats = Literal["keep", "consecutive", "first", "last"]
Value = str | int | float
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])"
    r"|'(?P<text>(?:[^']|'')*)'"
    r'|"(?P<column>(?:[^"]|"")*)"'
    r"|(?P<sign><=|>=|!=|<>|==|=|<|>|[(),])"
    r"|(?P<word>[^\W\d][\w.]*))"
)
_SAME = {"==": "=", "<>": "!="}
_COMPARED = ("=", "!=", "<", "<=", ">", ">=")
_EXAMPLE = "such as rating >= 4 and event in ('view', 'buy')"
_MOST_DIGITS = 18  # of a whole number that 64 bits always hold
_DEEPEST = 100  # parentheses in each other
_DAY = datetime.timedelta(days=1)
_ZONE = re.compile(r"([+-][0-9]{2}):?([0-9]{2})$")


class Comparison(NamedTuple):
    """A column beside values, of which it must be one where they are several."""

    column: str
    sign: str
    values: tuple[Value, ...]


class Joined(NamedTuple):
    """Conditions joined by ``and`` or ``or``, or one that ``not`` stands before."""

    word: str
    parts: tuple[Condition, ...]


Condition = Comparison | Joined


def columns_of(condition: Condition) -> list[str]:
    """Return the columns that a condition names, each once."""
    if isinstance(condition, Comparison):
        return [condition.column]
    return list(dict.fromkeys(name for part in condition.parts for name in columns_of(part)))


def parse_condition(text: str, name: str = "where") -> Condition:
    """Return the condition that a text is.

    Columns stand as they are, or in double quotes; text in single quotes, in which a doubled quote is
    one; ``and`` binds before ``or``.

    Raises:
        ConfigError: it is none; the message calls it ``name`` and shows where.
    """
    return _Parser(text, name).whole()


def check_condition(name: str, text: str) -> None:
    """Raise ``ConfigError`` unless ``text`` is a condition, or empty."""
    if text.strip():
        parse_condition(text, name)


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0

    def _split(self) -> Iterator[tuple[str, str, int]]:
        """Give kind, value and place of each word, and an end."""
        place, end = 0, len(self._text.rstrip())
        while place < end:
            found = _TOKEN.match(self._text, place)
            if found is None:
                raise self._error(place, "cannot be read")
            kind = str(found.lastgroup)
            value = found.group(kind)
            if kind == "word" and value.lower() in ("and", "or", "not", "in"):
                kind, value = "sign", value.lower()
            quote = {"text": "'", "column": '"'}.get(kind, "")
            yield kind, value.replace(quote * 2, quote) if quote else value, found.start(kind)
            place = found.end()
        yield "end", "", end

    def _error(self, place: int, why: str) -> ConfigError:
        rest = self._text[place:].strip()
        where = f"{shown(rest)} {why}" if rest else f"its end {why}"
        return ConfigError(
            f"{self._name} is {shown(self._text)}: {where}; write a condition {_EXAMPLE}"
        )

    def _next_is(self, *signs: str) -> str:
        """Return the next word, and go on, if it is one of some; else ""."""
        kind, value, _ = self._tokens[self._place]
        if kind == "sign" and value in signs:
            self._place += 1
            return value
        return ""

    def _require(self, sign: str) -> None:
        if not self._next_is(sign):
            raise self._error(self._tokens[self._place][2], f"stands where {sign} should")

    def whole(self) -> Condition:
        condition = self._joined("or")
        kind, _, place = self._tokens[self._place]
        if kind != "end":
            raise self._error(place, "stands where 'and', 'or' or the end should")
        return condition

    def _joined(self, word: str) -> Condition:
        parts = [self._joined("and") if word == "or" else self._single()]
        while self._next_is(word):
            parts.append(self._joined("and") if word == "or" else self._single())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _single(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(self._tokens[self._place][2], "is nested too deeply")
        try:
            if self._next_is("not"):
                return Joined("not", (self._single(),))
            if self._next_is("("):
                inner = self._joined("or")
                self._require(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Condition:
        kind, column, place = self._tokens[self._place]
        if kind not in ("word", "column"):
            raise self._error(place, "stands where the name of a column should")
        self._place += 1
        negated = bool(self._next_is("not"))
        if self._next_is("in"):
            self._require("(")
            values = [self._value()]
            while self._next_is(","):
                values.append(self._value())
            self._require(")")
            if len({isinstance(value, str) for value in values}) > 1:
                raise self._error(place, "has numbers and text in one list")
            among = Comparison(column, "=", tuple(values))
            return Joined("not", (among,)) if negated else among
        sign = "" if negated else self._next_is(*_COMPARED, *_SAME)
        if not sign:
            signs = "in" if negated else f"one of {' '.join(_COMPARED)}, in or not in"
            raise self._error(self._tokens[self._place][2], f"stands where {signs} should")
        return Comparison(column, _SAME.get(sign, sign), (self._value(),))

    def _value(self) -> Value:
        kind, value, place = self._tokens[self._place]
        if kind not in ("number", "text"):
            raise self._error(place, "stands where a number, or text in single quotes, should")
        self._place += 1
        if kind == "text":
            return value
        is_whole = value.lstrip("+-").isdecimal() and len(value) <= _MOST_DIGITS
        return int(value) if is_whole else float(value)


@dataclass(frozen=True)
class Bound:
    """A bound of time: a number as the column has them, or a moment.

    Attributes:
        number: None for a moment.
        moment: nanoseconds since 1970, in UTC where no zone is named.
        length: nanoseconds that the moment lasts: a day's, or none.
    """

    number: int | float | None
    moment: int = 0
    length: int = 0


def parse_bound(text: str, name: str) -> Bound:
    """Return the bound that a text is: a number, a day, or a day and time, with or without zone.

    Raises:
        ConfigError: it is none; the message calls it ``name``.
    """
    text = text.strip()
    for kind in (int, float):
        try:
            return Bound(kind(text))
        except ValueError:
            continue
    spelled = _ZONE.sub(r"\1:\2", re.sub(" ?(z|Z|UTC)$", "+00:00", text))
    try:
        moment = datetime.datetime.fromisoformat(spelled)
    except ValueError:
        raise ConfigError(
            f"{name} is {shown(text)}; it must be a number as the column of times has them, or a date "
            "such as 2026-03-01 or 2026-03-01T10:15:00+02:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    nanoseconds = (since // datetime.timedelta(microseconds=1)) * 1000
    is_day = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None
    return Bound(None, nanoseconds, int(_DAY.total_seconds()) * 10**9 if is_day else 0)


def check_bound(name: str, text: str) -> None:
    """Raise ``ConfigError`` unless ``text`` is a bound of time, or empty."""
    if text.strip():
        parse_bound(text, name)
