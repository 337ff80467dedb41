"""The forms of data that ``load_dataset`` reads: a row each of how it is known and how it is read.

Nothing here imports numpy or Arrow before data are read: the command line takes its choices from here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lares.data.file_names import SPLITS, files_in, last_name, stem, suffix
from lares.errors import DataError

if TYPE_CHECKING:
    from lares.data.dataset import Dataset, Interactions
    from lares.data.interactions import Reading

_LOOKED_AT = 100  # first lines, by which a file may be known
_LONGEST_LINE = 1 << 22  # letters of such a line
_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_MOVIELENS_FILES = ("u.data", "ratings.dat", "ratings.csv")
_MOVIELENS_HEADER = ("userId", "movieId")
_ASIN = re.compile(r"[B0-9][0-9A-Z]{9}")  # Amazon's numbers of products
_NUMBER, _SECONDS = re.compile(r"[0-9]+([.][0-9]+)?"), re.compile(r"[0-9]{9,10}")


@dataclass(frozen=True)
class Form:
    """A form of data.

    Attributes:
        name: by which options call it.
        what: it is, in words.
        read: makes interactions, or samples that are split already, of a file or folder.
        suffixes: of its files.
        sign: returns by what else than its suffix it is known, in words; "" if it is not.
    """

    name: str
    what: str
    read: Callable[[Form, Path, Reading], Interactions | Dataset]
    suffixes: tuple[str, ...] = ()
    sign: Callable[[Path], str] = lambda path: ""


def known_form(path: Path, header: bool = True) -> tuple[Form, str]:
    """Return the form of a file or folder, and by what it is known, in words.

    Args:
        path: file or folder.
        header: whether text has a header line.

    Raises:
        DataError: it is none, or may be one of several; the message names them.
    """
    if not header:
        return FORMS["csv"], "text without a header line was said"
    signs = {form: sign for form in FORMS.values() if (sign := form.sign(path))}
    if len(signs) == 1:
        return next(iter(signs.items()))
    if signs:
        raise _ambiguous(path, list(signs))
    endings = {suffix(file) for file in files_in(path)} if path.is_dir() else {suffix(path)}
    forms = [form for form in FORMS.values() if endings & set(form.suffixes)]
    if len(forms) == 1:
        return forms[0], f"suffix {' and '.join(sorted(endings & set(forms[0].suffixes)))}"
    if forms:
        held = " and ".join(form.what for form in reversed(forms))
        raise DataError(f"folder {path} holds both {held} files; name one of them")
    if path.is_dir():
        known = [ending for form in FORMS.values() for ending in form.suffixes]
        raise DataError(
            f"folder {path} holds neither {', '.join(_MOVIELENS_FILES)}, nor a file ending in "
            f"{', '.join(known)}; name a file"
        )
    found = repr(path.suffix) if path.suffix else "a file without suffix"
    raise DataError(
        f"{path}: cannot tell the format of {found}; --data.format names it ({', '.join(FORMS)})"
    )


def _ambiguous(path: Path, forms: list[Form]) -> DataError:
    candidates = ", ".join(f"{form.name} ({form.what})" for form in forms)
    return DataError(
        f"{path} may be one of {candidates}; --data.format names the one, or, with --data.header false "
        "and the columns' numbers, --data.user_column 0 and so on, any other text without a header"
    )


def _first_lines(path: Path, *suffixes: str) -> list[str]:
    """Return the first lines of a file with one of some suffixes that are not blank; of others none."""
    if suffix(path) not in suffixes or not path.is_file():
        return []
    from lares.data.formats.text_lines import text_lines

    try:
        lines = islice(text_lines(path, _LONGEST_LINE), _LOOKED_AT)
        return [line.strip() for line in lines if line.strip()]
    except DataError:  # who reads the file says so
        return []


def _movielens_files(path: Path) -> list[Path]:
    """Return the files of MovieLens' ratings that ``path`` is or holds."""
    found = []
    for file in files_in(path) if path.is_dir() else [path]:
        name = stem(file).lower() + suffix(file)
        if name in _MOVIELENS_FILES and (
            not name.endswith(".csv")
            or all(
                column in "".join(_first_lines(file, ".csv")[:1]) for column in _MOVIELENS_HEADER
            )
        ):
            found.append(file)
    return found


def _movielens_sign(path: Path) -> str:
    return " and ".join(f"the name {file.name}" for file in _movielens_files(path))


def _amazon_sign(place: int, path: Path) -> str:
    """Return the sign of lines that have a product's number at ``place``, the user's at the other."""
    rows = [line.split(",") for line in _first_lines(path, ".csv")]
    if not rows or not all(
        len(row) == 4 and _NUMBER.fullmatch(row[2]) and _SECONDS.fullmatch(row[3]) for row in rows
    ):
        return ""
    are_products = [all(_ASIN.fullmatch(row[column]) for row in rows) for column in (0, 1)]
    if are_products[0] == are_products[1]:  # the files of 2014 are called so
        may_be = place == 1 if path.name.startswith("ratings_") else True
    else:
        may_be = are_products[place]
    return f"lines without header, a product's number in column {place}" if may_be else ""


def _pairs_sign(path: Path) -> str:
    lines = [line.split() for line in _first_lines(path, ".txt")]
    return "lines of two words" if {len(words) for words in lines} == {2} else ""


def _user_lines_sign(path: Path) -> str:
    lines = [line.split() for line in _first_lines(path, ".txt")]
    counts = {len(words) for words in lines}
    if min(counts, default=0) < 2 or len({words[0] for words in lines}) < len(lines):
        return ""
    # Lines of one number of words are a table without a header as well; of two, pairs.
    as_many = len(lines) > 1 and len(counts) == 1 and counts != {2}
    return "" if as_many else "lines of several words, each beginning with another"


def _read_parquet(form: Form, path: Path, how: Reading) -> Interactions:
    from lares.data.formats.parquet import ParquetTable
    from lares.data.interactions import read_interactions
    from lares.data.tables import part_files

    table = ParquetTable(path, part_files(path, form.suffixes))
    return read_interactions(table, how, _name(path), _companions_note(form, path))


def _read_delimited(form: Form, path: Path, how: Reading, **dialect: Any) -> Interactions:
    """Delimited text, by default with a header."""
    from lares.data.formats.delimited import DelimitedTable
    from lares.data.interactions import read_interactions
    from lares.data.tables import part_files

    parts = part_files(path, form.suffixes or FORMS["csv"].suffixes)
    usual = {"delimiter": how.delimiter, "wanted": (how.user, how.item)}
    table = DelimitedTable(path, parts=parts, numbered=not how.header, **{**usual, **dialect})
    if form is not FORMS["csv"]:
        table.form = f"{form.what}, {table.form}"
    return read_interactions(table, how, _name(path), _companions_note(form, path))


def _read_amazon_2023(form: Form, path: Path, how: Reading) -> Interactions:
    """A CSV of Amazon Reviews 2023, or all three of its ``last_out`` form where ``path`` is one."""
    from lares.data.formats.delimited import DelimitedTable
    from lares.data.interactions import read_interactions
    from lares.data.tables import part_files

    name, split = _name(path), _split(path)
    parts = part_files(path, FORMS["csv"].suffixes)
    if split is not None:
        name = name.removesuffix(f".{split}")
        parts = [_companion(path, split, other) for other in SPLITS]
        missing = [part.name for part in parts if not part.is_file()]
        if missing:
            raise DataError(
                f"{path} is one of three parts; beside it {', '.join(missing)} is missing"
            )
    table = DelimitedTable(path, parts=parts, delimiter=how.delimiter)
    table.form = f"{form.what}, {table.form}"
    return read_interactions(table, replace(how, item="parent_asin"), name)


def _read_recbole(form: Form, path: Path, how: Reading) -> Interactions | Dataset:
    """Atomic files, plain or in sequence form."""
    from lares.data.formats.recbole import (
        AtomicTable,
        atomic_file,
        has_sequence_form,
        read_sequence_form,
    )
    from lares.data.interactions import read_interactions

    if has_sequence_form(path, how.item, how.delimiter):
        if how.filters():
            raise DataError(
                f"{path} is in sequence form, split already: {', '.join(how.filters())} cannot be "
                "applied"
            )
        return read_sequence_form(path, how)
    file = atomic_file(path)
    table = AtomicTable(file, how.delimiter)
    return read_interactions(table, how, stem(file), _companions_note(form, file))


def _read_movielens(form: Form, path: Path, how: Reading) -> Interactions:
    """Ratings of any release: with tabs (100K), ``::`` (1M, 10M) or as CSV with a header (20M on)."""
    from lares.data.formats.delimited import DelimitedTable
    from lares.data.interactions import read_interactions

    files = _movielens_files(path) if path.is_dir() else [path]
    if len(files) != 1:
        held = " and ".join(file.name for file in files) or f"none of {', '.join(_MOVIELENS_FILES)}"
        raise DataError(f"folder {path} holds {held}; name one file of MovieLens' ratings")
    (file,) = files
    first = "".join(_first_lines(file, suffix(file))[:1])
    name, known = _name(file), file.parent.resolve().name
    if all(column in first for column in _MOVIELENS_HEADER):
        table, release = DelimitedTable(file), "MovieLens"
    elif "::" in first:
        table = DelimitedTable(file, delimiter="::", quoted=False, header=_RATINGS)
        release = "MovieLens 1M or 10M"
    else:
        table = DelimitedTable(file, delimiter="\t", quoted=False, header=_RATINGS)
        release, known = "MovieLens 100K", "ml-100k"
    table.form = f"{release}, {table.form}"
    return read_interactions(table, how, known if known.startswith("ml-") else name)


def _read_user_lines(form: Form, path: Path, how: Reading) -> Interactions:
    from lares.data.formats.user_lines import UserLines
    from lares.data.interactions import read_interactions

    return read_interactions(UserLines(path, (how.user, how.item)), _in_order(how), _name(path))


def _read_pairs(form: Form, path: Path, how: Reading) -> Interactions:
    pairs = {"delimiter": " ", "quoted": False, "header": (how.user, how.item)}
    return _read_delimited(form, path, _in_order(how), **pairs)


def _in_order(how: Reading) -> Reading:
    """Return how to read rows that are in order of time, unless a column of times was named."""
    return replace(how, time="") if how.time is None else how


def _read_ratings(order: tuple[str, ...], form: Form, path: Path, how: Reading) -> Interactions:
    return _read_delimited(form, path, how, delimiter=",", header=order)


def _read_json(form: Form, path: Path, how: Reading) -> Interactions:
    from lares.data.formats.json_lines import JsonTable
    from lares.data.interactions import read_interactions
    from lares.data.tables import part_files

    table = JsonTable(path, part_files(path, form.suffixes))
    return read_interactions(table, how, _name(path), _companions_note(form, path))


_ROWS = (
    Form("parquet", "Parquet", _read_parquet, (".parquet", ".pq")),
    Form("csv", "CSV", _read_delimited, (".csv", ".tsv")),
    Form("jsonl", "JSON lines", _read_json, (".jsonl", ".ndjson", ".json")),
    Form("recbole", "RecBole atomic", _read_recbole, (".inter",)),
    Form("amazon23", "Amazon Reviews 2023", _read_amazon_2023),
    Form(
        "amazon18",
        "Amazon 2018 ratings: item,user,rating,timestamp",
        functools.partial(_read_ratings, ("item_id", "user_id", "rating", "timestamp")),
        sign=functools.partial(_amazon_sign, 0),
    ),
    Form(
        "amazon14",
        "Amazon 2014 ratings: user,item,rating,timestamp",
        functools.partial(_read_ratings, _RATINGS),
        sign=functools.partial(_amazon_sign, 1),
    ),
    Form("movielens", "MovieLens' ratings", _read_movielens, sign=_movielens_sign),
    Form("sasrec", "SASRec's text, 'user item' a line", _read_pairs, sign=_pairs_sign),
    Form(
        "s3rec",
        "S3-Rec's text, a user and the items a line",
        _read_user_lines,
        sign=_user_lines_sign,
    ),
)
FORMS = {form.name: form for form in _ROWS}
FORMAT_NAMES = ("auto", *FORMS)
if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[FORMAT_NAMES]


def _name(path: Path) -> str:
    return last_name(path) if path.is_dir() else stem(path)


def _split(path: Path) -> str | None:
    """Return the split that a file's name ends in, as in ``x.train.csv``."""
    if path.is_dir():
        return None
    return next((split for split in SPLITS if stem(path).endswith(f".{split}")), None)


def _companion(path: Path, split: str, other: str) -> Path:
    """Return the name of the file of another split beside ``path``."""
    name = stem(path)
    return path.with_name(name.removesuffix(split) + other + path.name.removeprefix(name))


def _companions_note(form: Form, path: Path) -> str:
    """Return what to say about files of other splits beside one that is read alone; "" for none."""
    split = _split(path)
    others = [] if split is None else [_companion(path, split, o) for o in SPLITS if o != split]
    there = [other.name for other in others if other.is_file()]
    if not there:
        return ""
    joined = "; --data.format amazon23 joins them" if form.name == "csv" else ""
    return f"{path.name} alone is read, not {' and '.join(there)} beside it{joined}"
