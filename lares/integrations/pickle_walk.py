"""Goes through a pickle before anything of it is made, and says what it would take.

Unpickling does what a file says, and a small file can say much: a place in the memo far out, tuples
within tuples past the end of the stack, copies of one long list. What ``torch.save`` writes does none
of that. What an opcode takes from the stack and puts there is ``pickletools``' to say.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, BinaryIO

# More than pickle itself can write before Python's stack ends.
MOST_NESTED = 1000
MOST_NAMES = 10_000  # of classes and functions; a pickle names each once
# What calls may copy and keys may cost to be hashed, in elements and bytes: so many times the pickle's
# own size, and what is small anyway.
_COPIES, _SMALL = 4, 1 << 20

_REFUSED = ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")
_KEEP = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GET = ("GET", "BINGET", "LONG_BINGET")
_NAME = ("GLOBAL", "STACK_GLOBAL", "INST")
_FILL = ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "BUILD")
_COPY = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "FROZENSET")
# Which of the objects that an opcode takes it hashes.
_HASHED = {
    "DICT": slice(0, None, 2),
    "SETITEM": slice(1, None, 2),
    "SETITEMS": slice(1, None, 2),
    "ADDITEMS": slice(1, None),
}


class _Made:
    """Stand for an object that a pickle makes.

    Attributes:
        value: of a number or text; of a class or function its name.
        is_named: whether it is a class or function.
        parts: elements of a tuple.
        size: elements and bytes in it, through and through.
        hashing: elements that are looked at to hash it: those of tuples, through and through.
        depth: containers within one another.
    """

    __slots__ = ("depth", "hashing", "is_named", "parts", "size", "value")

    def __init__(
        self,
        held: Sequence[_Made] = (),
        value: object = None,
        is_named: bool = False,
        is_tuple: bool = False,
    ) -> None:
        self.value, self.is_named = value, is_named
        self.parts = held if is_tuple else ()
        self.hashing: int = 1 + sum(part.hashing for part in self.parts)
        self.size = 1 + (len(value) if isinstance(value, (str, bytes, bytearray)) else 0)
        self.depth = 0
        self.hold(held)

    def hold(self, others: Sequence[_Made]) -> None:
        """Hold other objects from now on."""
        for other in others:
            self.size += other.size
            self.depth = max(self.depth, 1 + other.depth)
        if self.depth > MOST_NESTED:
            raise pickle.UnpicklingError(
                f"it nests containers more than {MOST_NESTED} deep, which pickle cannot write"
            )


class _Walk:
    """One pickle, up to its end.

    Attributes:
        persistent: what its persistent ids, which are tuples, hold: numbers, text, names of classes.
        cost: of what was copied and hashed.
    """

    def __init__(self) -> None:
        self.persistent: list[tuple[Any, ...]] = []
        self.cost = 0
        self._stack: list[_Made] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Made] = {}
        self._n_seen = self._n_names = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do what an opcode does."""
        name = opcode.name
        self._n_seen += 1
        if name in _REFUSED:
            raise pickle.UnpicklingError(f"it has opcode {name}, which torch.save does not write")
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "POP" and self._marks[-1:] == [len(self._stack)]:
            self._marks.pop()
        elif name in _KEEP:
            self._keep(len(self._memo) if name == "MEMOIZE" else argument)
        elif name in _GET:
            if argument not in self._memo:
                raise pickle.UnpicklingError(f"place {argument} of its memo is empty")
            self._stack.append(self._memo[argument])
        else:
            taken = self._taken(opcode.stack_before)
            self._charge(name, taken)
            made = self._made(opcode, argument, taken)
            self._stack += [made] * len(opcode.stack_after)

    def _taken(self, before: Sequence[pickletools.StackObject]) -> list[_Made]:
        """Take from the stack what an opcode finds there: so many objects, or all since a mark."""
        since_mark: list[_Made] = []
        count = len(before)
        if pickletools.markobject in before:
            if not self._marks:
                raise pickle.UnpicklingError("it takes what is not there")
            place, count = self._marks.pop(), before.index(pickletools.markobject)
            since_mark = self._stack[place:]
            del self._stack[place:]
        place = len(self._stack) - count
        if place < (self._marks[-1] if self._marks else 0):
            raise pickle.UnpicklingError("it takes what is not there")
        taken = self._stack[place:] + since_mark
        del self._stack[place:]
        return taken

    def _charge(self, name: str, taken: Sequence[_Made]) -> None:
        """Count what an opcode names, copies and hashes."""
        self._n_names += name in _NAME
        if self._n_names > MOST_NAMES:
            raise pickle.UnpicklingError(f"it names more than {MOST_NAMES} classes and functions")
        if name in _COPY:
            self.cost += sum(each.size for each in taken)
        elif name in _HASHED:
            self.cost += sum(key.hashing for key in taken[_HASHED[name]])

    def _made(self, opcode: pickletools.OpcodeInfo, argument: Any, taken: Sequence[_Made]) -> _Made:
        """Return what an opcode makes of the objects that it takes."""
        name = opcode.name
        if name in _FILL:
            if taken[0].is_named:
                raise pickle.UnpicklingError("it changes a class or a function")
            taken[0].hold(taken[1:])
        if name in (*_FILL, "DUP"):
            return taken[0]
        if name == "GLOBAL":
            return _Made(value=argument.rpartition(" ")[2], is_named=True)
        if name == "STACK_GLOBAL":
            return _Made(value=taken[1].value, is_named=True)
        if name == "BINPERSID":
            self.persistent.append(tuple(part.value for part in taken[0].parts))
            return _Made()
        is_tuple = pickletools.pytuple in opcode.stack_after
        return _Made(taken, None if name in _COPY else argument, is_tuple=is_tuple)

    def _keep(self, index: int) -> None:
        """Put the last object into the memo: pickle counts its places up."""
        if not 0 <= index <= self._n_seen:
            raise pickle.UnpicklingError(f"place {index} of its memo is not the next")
        (self._memo[index],) = kept = self._taken([pickletools.anyobject])
        self._stack += kept


def walk_pickle(file: BinaryIO) -> list[tuple[Any, ...]]:
    """Go through the pickle at which ``file`` stands, to its end, and make nothing.

    What unpickling it takes is then bounded by its length: memory at some hundred times, and the depth
    of Python's stack. It changes no class and no function.

    Returns:
        Its persistent ids, of what is stored beside it: numbers, texts and names of classes in each.

    Raises:
        pickle.UnpicklingError, ValueError: it is none, or would take more.
    """
    start = file.tell()
    walk = _Walk()
    for opcode, argument, position in pickletools.genops(file):
        walk.step(opcode, argument)
        assert position is not None
        if walk.cost > _SMALL + _COPIES * (position - start):
            raise pickle.UnpicklingError("it makes copies of more than it holds")
    return walk.persistent
