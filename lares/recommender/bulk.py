"""Write the lists of many users to a file: in parts, so that a run that was stopped goes on.

Parts lie in a folder beside the file, with a mark of what they are lists of. The file is there when it
is whole, and then the folder is not.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from lares import __version__
from lares.bars import tqdm
from lares.data.ids import is_text
from lares.errors import CheckpointError, ConfigError
from lares.files import read_json, remove_unfinished, write_json
from lares.recommender.asked import Asked, ItemLists
from lares.recommender.ranked import BATCH, ListMaker
from lares.table_files import require_form, table_file
from lares.training.display import shows_bars
from lares.training.interrupts import Interrupted, StopRequest, stop_request
from lares.training.lock import LOCK_FILE, held

PART = 16 * BATCH  # users
_MARK = "lists.json"
_AT_ONCE = 1 << 20  # ids that are hashed together


class Part(NamedTuple):
    """Hold where the lists of users ``first..end-1`` lie."""

    path: Path
    first: int
    end: int


class Shown(NamedTuple):
    """Hold what is said while lists are made: of which file, with a bar or not, and how."""

    output: Path
    progress: bool
    say: Callable[[str], None]


def write_lists(
    output: Path,
    maker: ListMaker,
    asked: Asked,
    *,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Write the lists of all who ask, as :meth:`ListMaker.tables` makes them.

    A run that was stopped or killed goes on where it was, to the same file; what it left of other lists
    is removed, and said.

    Args:
        output: a file whose name ends in one of ``lares.table_files.FORMS``.
        maker: of the lists.
        asked: who asks.
        progress: show a bar where one can be drawn.
        say: tells that parts of other lists were there, or of these.

    Raises:
        ConfigError: there is no such form, or another process writes there.
        CheckpointError: the folder of the parts holds something else.
        Interrupted: SIGINT or SIGTERM came; the parts are kept.
    """
    require_form("output", output)
    folder = output.with_name(output.name + ".parts")
    marks = _marks(maker, asked)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{folder} must be a folder, for parts of the lists; move it") from None
    with held(folder, "--output"), stop_request() as request:
        _prepare(folder, marks, say)
        remove_unfinished(
            output.parent, output.name
        )  # of one that was killed as it joined the parts
        parts = _parts(folder, len(asked))
        try:
            _make(parts, maker, asked, Shown(output, progress, say), request)
            with table_file(output, _read(parts[0]).schema) as add:
                for part in parts:
                    add(_read(part))
            shutil.rmtree(folder)
        except BaseException:
            if not any(part.path.exists() for part in parts):
                shutil.rmtree(folder, ignore_errors=True)  # nothing to go on with
            raise


def _make(
    parts: Sequence[Part], maker: ListMaker, asked: Asked, show: Shown, request: StopRequest
) -> None:
    """Make the parts that are not there.

    Raises:
        Interrupted: it was requested.
    """
    left = [part for part in parts if not part.path.is_file()]
    before = len(asked) - sum(part.end - part.first for part in left)
    if before:
        show.say(f"{parts[0].path.parent} has the lists of {before:,} users already; they are kept")
    with tqdm(
        total=len(asked),
        initial=before,
        desc=show.output.name,
        unit=" users",
        disable=not (show.progress and shows_bars()),
        leave=False,
    ) as bar:
        for part in left:
            tables = []
            for table in maker.tables(asked.part(part.first, part.end), part.first):
                if request.number:
                    raise _stopped(show.output, parts, request)
                tables.append(table)
                bar.update(min(BATCH, len(asked) - int(bar.n)))
            with table_file(part.path, tables[0].schema) as add:
                add(pa.concat_tables(tables))


def _read(part: Part) -> pa.Table:
    with part.path.open("rb") as file:  # whose name may be no text
        return pq.read_table(file)


def _parts(folder: Path, users: int) -> list[Part]:
    """Return the parts of so many users' lists, at least one."""
    return [
        Part(folder / f"{first // PART:08d}.parquet", first, min(first + PART, users))
        for first in range(0, max(users, 1), PART)
    ]


def _stopped(output: Path, parts: Sequence[Part], request: StopRequest) -> Interrupted:
    done = sum(part.end - part.first for part in parts if part.path.is_file())
    return Interrupted(
        f"stopped; the lists of {done:,} of {parts[-1].end:,} users are kept, and the same command "
        f"goes on to {output}",
        request.number,
    )


# --- what parts are lists of -----------------------------------------------------------------------


def _prepare(folder: Path, marks: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Make a folder one for parts of these lists: empty, or of those that are there already.

    Raises:
        CheckpointError: it holds something else.
    """
    mark = folder / _MARK
    remove_unfinished(folder)
    others = [path for path in folder.iterdir() if path.name not in (LOCK_FILE, _MARK)]
    if mark.is_file():
        before = read_json(mark)
        differ = [name for name in marks if before.get(name) != marks[name]]
        if not differ:
            return
        if others:
            say(
                f"{folder} has a part of other lists (what differs: {', '.join(differ)}); "
                "these begin anew"
            )
        for path in others:
            path.unlink()
    elif others:
        raise CheckpointError(
            f"{folder} is for parts of the lists, and holds {others[0].name}, which is none; move it"
        )
    write_json(mark, marks)


def _marks(maker: ListMaker, asked: Asked) -> dict[str, Any]:
    """Return what lists depend on, by what messages call it."""
    how = maker.how
    return {
        "version": f"{__version__}, parts of {PART}",
        "model": _digest_of_model(maker),
        "device": maker.model.device.type,
        "users or histories": _digest(
            _ids(asked.users), [asked.items], [asked.starts], [asked.stops]
        ),
        "k": how.k,
        "keep_history": not how.remove_history,
        "depth": how.depth,
        "seed": how.seed,
        "exclude": _digest_of_lists(how.exclude),
        "only": None if how.only is None else _digest_of_lists(how.only),
        "emptied": None if how.emptied is None else _digest([how.emptied]),
        "items": None if how.titles is None else _digest(_ids(how.titles.fill_null(""))),
    }


def _digest_of_model(maker: ListMaker) -> str:
    model = maker.model
    weights = (
        tensor.detach().cpu().flatten().view(torch.uint8).numpy()
        for tensor in model.state_dict().values()
    )
    about = f"{model.config} {model.seed}".encode() + maker.vocabulary.digest()
    return _digest([about], *([each] for each in weights))


def _digest_of_lists(lists: ItemLists) -> list[str]:
    common = [] if lists.common is None else [lists.common]
    own = {} if lists.own is None else lists.own
    of_each = (part for number in sorted(own) for part in (np.array([number]), own[number]))
    return [_digest(common), _digest(of_each)]


def _ids(values: pa.Array) -> Iterator[Any]:
    """Give the bytes that ids, whole numbers or text, are told apart by."""
    for first in range(0, len(values), _AT_ONCE):
        some = values.slice(first, _AT_ONCE)
        if is_text(some.type):
            yield pc.binary_length(some).to_numpy(zero_copy_only=False)
            yield "".join(some.to_pylist()).encode()
        else:
            yield some.to_numpy(zero_copy_only=False)


def _digest(*parts: Iterable[Any]) -> str:
    """Return a hash of parts, each of bytes or arrays, in hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        own = hashlib.blake2b(digest_size=16)
        for piece in part:
            own.update(piece if isinstance(piece, bytes) else np.ascontiguousarray(piece).data)
        whole.update(own.digest())
    return whole.hexdigest()
