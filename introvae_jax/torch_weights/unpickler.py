"""Reads pickles without running anything in them, on the standard library's pure Python unpickler.

An ordinary unpickler imports what a file names and calls it. Here every opcode that can reach a name or call something
is replaced (find_class for GLOBAL and STACK_GLOBAL, persistent_load, REDUCE, NEWOBJ, BUILD), opcodes that weights do
not need are refused, and the others only push constants and fill containers. A name becomes a `Global` and an object
an `Object`: placeholders that hold what the file says and do nothing.

The C implementation, pickle.Unpickler, cannot be restricted enough: it resolves extension codes from a cache without
find_class, NEWOBJ needs real classes, a memo index of 2**31 allocates gigabytes, and hashing a deeply nested tuple as a
key overflows the C stack.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import io
import mmap
import pickle
import pickletools
import struct
from typing import Any, BinaryIO

MAX_BYTES = 2**22  # of one pickle; each byte makes the unpickler keep a few hundred bytes at most
MAX_COPIED = 2**20  # items that calls copy out of containers, which a pickle can name again and again

# Errors that the unpickler raises for a damaged pickle.
DAMAGE = (
    ValueError, LookupError, TypeError, OverflowError, AttributeError, EOFError, struct.error, pickle.UnpicklingError,
)  # fmt: skip


class Refused(Exception):
    """The pickle requests something that is not allowed; the message names it."""


@dataclasses.dataclass(frozen=True)
class Global:
    """A placeholder for a function or class, with its name, "torch.FloatStorage". It cannot be called."""

    name: str


@dataclasses.dataclass(eq=False)
class Object:
    """A placeholder for an object of the class `kind`, with its arguments and its state in the file."""

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rules:
    """The requests that a pickle is allowed to make.

    functions: replacements for functions, by full name. is_class: True if (module, name) may be the class of an
    `Object`. names: further names that may occur. persistent: persistent ID -> object.
    """

    functions: Mapping[str, Callable[..., Any]]
    is_class: Callable[[str, str], bool]
    names: frozenset[str]
    persistent: Callable[[Any], Any]


def load(stream: BinaryIO | mmap.mmap, rules: Rules, max_bytes: int = MAX_BYTES) -> Any:
    """Reads the pickle at the stream's position; the stream is then at the byte after it.

    max_bytes: of the pickle. Raises Refused if the pickle is longer or requests something that `rules` do not allow,
    and an error in DAMAGE if it is damaged or truncated.
    """
    start = stream.tell()
    content = _Content(stream.read(max_bytes))
    try:
        loaded = _Unpickler(content, rules).load()
    except DAMAGE as error:
        if content.tell() == max_bytes:
            raise Refused(f"more than {max_bytes >> 20} MiB of names and containers") from error
        raise
    stream.seek(start + content.tell())
    return loaded


def plain(key: Any) -> Any:
    """Returns `key` if it may be a key of a dictionary or set, otherwise raises Refused.

    Hashing a deeply nested tuple would crash the process, and large integers can be chosen to have equal hashes, which
    makes a dictionary extremely slow.
    """
    if not isinstance(key, str | bytes | int | float | None):
        raise Refused(f"a {type(key).__name__} as the key of a dictionary or set")
    if isinstance(key, int) and abs(key) >= 2**60:
        raise Refused("an integer of more than 60 bits as the key of a dictionary or set")
    return key


def pairs(items: Iterable[Any]) -> dict[Any, Any]:
    """A dictionary of (key, value) pairs."""
    return {plain(key): value for key, value in items}


def _alternating(items: list[Any]) -> dict[Any, Any]:
    """A dictionary of key, value, key, value, ..."""
    return pairs(zip(items[::2], items[1::2], strict=True))


class _Content(io.BytesIO):
    """A stream that raises EOFError at its end: the library would accept a truncated constant."""

    def read(self, size: int) -> bytes:
        data = super().read(size)
        if len(data) < size:
            raise EOFError("it ends early")
        return data

    def readline(self) -> bytes:
        line = super().readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends early")
        return line


class _Dispatch(dict[int, Any]):
    """Opcode -> method. Every opcode that is not in it is refused."""

    def __missing__(self, code: int) -> Any:
        opcode = pickletools.code2op.get(chr(code))
        raise Refused(f"the opcode {opcode.name}") if opcode else ValueError(f"there is no opcode {code}")


# The opcodes that keep the standard library's method: they push constants, make and fill containers, and keep the stack
# and the memo. The last three call find_class and persistent_load.
_UNCHANGED = """
PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST EMPTY_TUPLE EMPTY_DICT EMPTY_SET
LIST TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS GLOBAL STACK_GLOBAL BINPERSID
"""


class _Unpickler(pickle._Unpickler):
    _codes = tuple(getattr(pickle, name)[0] for name in _UNCHANGED.split())
    dispatch = _Dispatch(zip(_codes, map(pickle._Unpickler.dispatch.get, _codes), strict=True))

    def __init__(self, content: BinaryIO, rules: Rules):
        super().__init__(content, encoding="latin-1")  # of the strings of Python 2
        self._rules, self._copied = rules, 0

    def find_class(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        known = full in self._rules.functions or full in self._rules.names
        if not known and not self._rules.is_class(module, name):
            raise Refused(full)
        return Global(full)

    def persistent_load(self, pid: Any) -> Any:
        return self._rules.persistent(pid)

    def load_reduce(self) -> None:
        arguments, called = self._pop(tuple), self._pop(object)
        if not isinstance(called, Global) or called.name not in self._rules.functions:
            raise Refused(f"a call of {called.name if isinstance(called, Global) else type(called).__name__}")
        self._copied += sum(len(part) for part in arguments if isinstance(part, list | tuple | dict | set))
        if self._copied > MAX_COPIED:
            raise Refused(f"more than {MAX_COPIED} items")
        self.append(self._rules.functions[called.name](*arguments))

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        arguments, cls = self._pop(tuple), self._pop(Global)
        if arguments or not self._rules.is_class(*cls.name.rsplit(".", 1)):
            raise Refused(f"an object of {cls.name} made with {len(arguments)} arguments")
        self.append(Object(cls.name))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_build(self) -> None:
        state, built = self._pop(object), self.stack[-1]
        if isinstance(built, Object):
            built.state = state
        elif not isinstance(built, dict):  # a dictionary's is the _metadata of a state dict, which is not needed
            raise Refused(f"a state of type {type(state).__name__} for a {type(built).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    # Keys of dictionaries and items of sets are hashed: these opcodes check them first.

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_alternating(items))

    dispatch[pickle.DICT[0]] = load_dict

    def load_setitem(self) -> None:
        value, key = self._pop(object), plain(self._pop(object))
        self._top(dict)[key] = value

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        items = _alternating(self.pop_mark())
        self._top(dict).update(items)

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_additems(self) -> None:
        items = map(plain, self.pop_mark())
        self._top(set).update(items)

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(plain, items)))

    dispatch[pickle.FROZENSET[0]] = load_frozenset

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} should be")
        return self.stack[-1]

    def _pop(self, kind: type) -> Any:
        top = self._top(kind)
        del self.stack[-1]
        return top
