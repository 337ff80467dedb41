"""Goes through a pickle before anything of it is made, and says what it would take.

Unpickling does what a file says, and a small file can say much: a place in the memo far out, tuples
within tuples past the end of the stack, copies of one long list. What ``torch.save`` writes does none
of that.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Sequence
from typing import BinaryIO

# More than pickle itself can write before Python's stack ends.
MOST_NESTED = 1000
# Each makes a class; a pickle names every class once.
MOST_GLOBALS = 10_000
# What calls may copy and keys may cost to be hashed, in elements and bytes: so many times the pickle's
# own size, and what is small anyway.
_COPIES, _SMALL = 4, 1 << 20


class _Made:
    """Stand for an object that a pickle makes.

    Attributes:
        size: elements or bytes of a copy.
        hashing: elements that are looked at to hash it: those of tuples, through and through.
        inside: the same of all its elements.
        depth: containers within one another.
        parts: elements of a tuple, which may be the arguments of a call.
    """

    __slots__ = ("depth", "hashing", "inside", "parts", "size")

    def __init__(self, size: int = 1, parts: Sequence[_Made] = (), is_tuple: bool = False) -> None:
        self.size, self.hashing, self.inside, self.depth = size, 1, 0, 0
        self.parts: Sequence[_Made] = ()
        self.take(parts)
        if is_tuple:
            self.size, self.hashing, self.parts = len(parts), 1 + self.inside, parts

    def take(self, parts: Sequence[_Made]) -> None:
        """Hold ``parts`` from now on."""
        if parts:
            self.size += len(parts)
            self.inside += sum(part.hashing for part in parts)
            self.depth = max(self.depth, 1 + max(part.depth for part in parts))
        if self.depth > MOST_NESTED:
            raise pickle.UnpicklingError(
                f"it nests containers more than {MOST_NESTED} deep, which pickle cannot write"
            )


_ATOM = _Made()


class _Walk:
    """One pickle, up to its end."""

    def __init__(self) -> None:
        self.stack: list[_Made] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Made] = {}
        self.seen = 0  # opcodes
        self.globals = 0
        self.cost = 0

    def pop(self) -> _Made:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise pickle.UnpicklingError("it takes what is not there")
        return self.stack.pop()

    def slice(self) -> list[_Made]:
        """Return what came after the last mark."""
        if not self.marks:
            raise pickle.UnpicklingError("it takes what is not there")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def top(self) -> _Made:
        self.stack.append(self.pop())
        return self.stack[-1]

    def push(self, made: _Made) -> None:
        self.stack.append(made)

    def keep(self, index: int) -> None:
        """Put the last object into the memo: pickle counts its places up."""
        if not 0 <= index <= self.seen:
            raise pickle.UnpicklingError(f"place {index} of its memo is not the next")
        self.memo[index] = self.top()

    def kept(self, index: int) -> None:
        if index not in self.memo:
            raise pickle.UnpicklingError(f"place {index} of its memo is empty")
        self.push(self.memo[index])

    def named(self) -> None:
        self.globals += 1
        if self.globals > MOST_GLOBALS:
            raise pickle.UnpicklingError(f"it names more than {MOST_GLOBALS} classes and functions")

    def call(self, arguments: Sequence[_Made]) -> None:
        """Make an object of copies of the arguments."""
        for each in arguments:
            self.cost += each.size + each.inside
        self.push(_Made(1, arguments))

    def hash(self, keys: Sequence[_Made]) -> None:
        self.cost += sum(key.hashing for key in keys)

    def tuple_of(self, count: int) -> None:
        parts = [self.pop() for _ in range(count)][::-1]
        self.push(_Made(parts=parts, is_tuple=True))

    def items(self, pairs: list[_Made]) -> None:
        """Put keys and values into the last object."""
        self.hash(pairs[::2])
        self.top().take(pairs)

    def elements(self, parts: list[_Made], hashed: bool = False) -> None:
        if hashed:
            self.hash(parts)
        self.top().take(parts)

    def frozen(self, parts: list[_Made]) -> None:
        self.hash(parts)
        self.push(_Made(0, parts))

    def dict_of(self, pairs: list[_Made]) -> None:
        self.push(_Made(0))
        self.items(pairs)

    def reduce(self, extra: int = 0) -> None:
        """Call a function, or make an object of a class, of a tuple and of ``extra`` more."""
        more = [self.pop() for _ in range(extra)]
        arguments = self.pop()
        self.pop()
        self.call([*(arguments.parts or (arguments,)), *more])

    def build(self) -> None:
        state = self.pop()
        self.cost += len(state.parts)
        self.top().take([state])

    def instance(self, parts: list[_Made], of_stack: bool) -> None:
        if not of_stack:
            self.named()
        elif not parts:
            raise pickle.UnpicklingError("it takes what is not there")
        self.call(parts[1:] if of_stack else parts)

    def two(self) -> list[_Made]:
        second = self.pop()
        return [self.pop(), second]

    def stack_global(self) -> None:
        self.two()
        self.named()
        self.push(_ATOM)

    def name_global(self) -> None:
        self.named()
        self.push(_ATOM)

    def drop(self) -> None:
        """Take an object away, or the last mark where it is the last."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def persistent(self) -> None:
        self.pop()
        self.push(_ATOM)


_SILENT = ("PROTO", "FRAME", "STOP")
_REFUSED = ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")
_DOES: dict[str, Callable[[_Walk], object]] = {
    "MARK": lambda walk: walk.marks.append(len(walk.stack)),
    "POP": _Walk.drop,
    "POP_MARK": _Walk.slice,
    "DUP": lambda walk: walk.push(walk.top()),
    "MEMOIZE": lambda walk: walk.keep(len(walk.memo)),
    "EMPTY_TUPLE": lambda walk: walk.tuple_of(0),
    "TUPLE1": lambda walk: walk.tuple_of(1),
    "TUPLE2": lambda walk: walk.tuple_of(2),
    "TUPLE3": lambda walk: walk.tuple_of(3),
    "TUPLE": lambda walk: walk.push(_Made(parts=walk.slice(), is_tuple=True)),
    "EMPTY_LIST": lambda walk: walk.push(_Made(0)),
    "EMPTY_DICT": lambda walk: walk.push(_Made(0)),
    "EMPTY_SET": lambda walk: walk.push(_Made(0)),
    "LIST": lambda walk: walk.push(_Made(0, walk.slice())),
    "DICT": lambda walk: walk.dict_of(walk.slice()),
    "FROZENSET": lambda walk: walk.frozen(walk.slice()),
    "APPEND": lambda walk: walk.elements([walk.pop()]),
    "APPENDS": lambda walk: walk.elements(walk.slice()),
    "ADDITEMS": lambda walk: walk.elements(walk.slice(), hashed=True),
    "SETITEM": lambda walk: walk.items(walk.two()),
    "SETITEMS": lambda walk: walk.items(walk.slice()),
    "GLOBAL": _Walk.name_global,
    "STACK_GLOBAL": _Walk.stack_global,
    "REDUCE": _Walk.reduce,
    "NEWOBJ": _Walk.reduce,
    "NEWOBJ_EX": lambda walk: walk.reduce(1),
    "INST": lambda walk: walk.instance(walk.slice(), of_stack=False),
    "OBJ": lambda walk: walk.instance(walk.slice(), of_stack=True),
    "BUILD": _Walk.build,
    "PERSID": lambda walk: walk.push(_ATOM),
    "BINPERSID": _Walk.persistent,
}
_OF_THE_MEMO: dict[str, Callable[[_Walk, int], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Walk.keep),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Walk.kept),
}


def walk_pickle(file: BinaryIO) -> None:
    """Go through the pickle at which ``file`` stands, to its end, and make nothing.

    What unpickling it takes is then bounded by its length: memory at some hundred times, and the depth
    of Python's stack.

    Raises:
        pickle.UnpicklingError, ValueError: it is none, or would take more.
    """
    start = file.tell()
    walk = _Walk()
    for opcode, argument, position in pickletools.genops(file):
        walk.seen += 1
        name = opcode.name
        does = _DOES.get(name)
        if does is not None:
            does(walk)
        elif name in _OF_THE_MEMO:
            assert isinstance(argument, int)
            _OF_THE_MEMO[name](walk, argument)
        elif name in _REFUSED:
            raise pickle.UnpicklingError(f"it has opcode {name}, which torch.save does not write")
        elif isinstance(argument, (str, bytes, bytearray)):
            walk.push(_Made(len(argument)))
        elif name not in _SILENT:
            walk.push(_ATOM)
        assert position is not None
        if walk.cost > _SMALL + _COPIES * (position - start):
            raise pickle.UnpicklingError("it makes copies of more than it holds")
