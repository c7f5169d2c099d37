"""Pickles read as data: a small machine that interprets their opcodes and has nothing to call.

Python's own unpickler imports and calls whatever a file names. Here a name stays a name (`Global`), an object
of a class is its recorded state (`Instance`), and the only functions that can run are those of `Rules`.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import pickletools
from typing import Any, BinaryIO

# Of one pickle without its byte strings, which take what they take in the file. Names and sizes take little; what a
# byte of them can make the machine keep is a few hundred bytes at most, so these bound the memory too.
MAX_BYTES = 2**22
MAX_COPIED = 2**20  # items that calls and states copy out of containers, which a pickle can name again and again


class Refused(Exception):
    """The pickle asks for what no rule allows; the message says for what."""


# What a damaged pickle makes pickletools and the machine raise.
DAMAGE = (ValueError, LookupError, TypeError, OverflowError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a function or class, "torch.FloatStorage": nothing stands behind it."""

    name: str


@dataclasses.dataclass(eq=False)
class Instance:
    """An object of the class `kind` that was never made: what the file says its attributes are."""

    kind: str
    state: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rules:
    """All that a pickle may ask for.

    functions: what stands in for the calls of a name. is_class: whether (module, name) may be an `Instance`.
    names: further names that may be mentioned. persistent: the object behind a persistent id. set_state: takes the
    state of an object, if it is neither a dictionary's nor a dictionary for an `Instance`; False if it may not be.
    """

    functions: Mapping[str, Callable[..., Any]]
    is_class: Callable[[str, str], bool]
    names: frozenset[str]
    persistent: Callable[[Any], Any]
    set_state: Callable[[Any, Any], bool] = lambda built, state: False


def load(stream: BinaryIO, rules: Rules) -> Any:
    """The object of the pickle that begins at the stream's position, which then is the first byte behind it.

    Raises Refused if it asks for what no rule allows, and one of DAMAGE if it is no whole pickle.
    """
    machine = _Machine(rules)
    start = stream.tell()
    for opcode, argument, position in pickletools.genops(stream):
        if position - start > MAX_BYTES:
            raise Refused(f"more than {MAX_BYTES >> 20} MiB of names and containers")
        if opcode.name in _BYTES:
            start += len(argument)
        machine.do(opcode.name, argument)
    return machine.pop()


def plain(key: Any) -> Any:
    """`key` if it may be one of a dictionary or set. Others need none, and hashing deep tuples ends the process."""
    if not isinstance(key, str | bytes | int | float | None):
        raise Refused(f"a {type(key).__name__} as the key of a dictionary or set")
    return key


def pairs(items: Iterable[Any]) -> dict[Any, Any]:
    """A dictionary of (key, value) pairs."""
    return {plain(key): value for key, value in items}


def _couples(items: list[Any]) -> dict[Any, Any]:
    """A dictionary of key, value, key, value, ..."""
    return pairs(zip(items[::2], items[1::2], strict=True))


_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_PUSH = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    *_BYTES,
))  # fmt: skip
_NEW = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_FROM_MARK = {
    "LIST": list, "TUPLE": tuple, "DICT": _couples, "FROZENSET": lambda items: frozenset(map(plain, items)),
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = (str, bytes, list, tuple, dict, set, frozenset)
_PASS = frozenset(("PROTO", "FRAME", "STOP"))


class _Machine:
    """Stack, marks and memo. `do` takes one opcode; those it has no method for are refused."""

    def __init__(self, rules: Rules):
        self._rules = rules
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def do(self, opcode: str, argument: Any) -> None:
        push = self._stack.append
        if opcode in _PUSH:
            push(argument)
        elif opcode in _NEW:
            push(_NEW[opcode]())
        elif opcode in _FROM_MARK:
            push(_FROM_MARK[opcode](self._since_mark()))
        elif opcode in _TUPLES:
            push(tuple([self.pop() for _ in range(_TUPLES[opcode])][::-1]))
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memo[argument])
        elif opcode in ("INST", "EXT1", "EXT2", "EXT4"):
            named = str(argument).replace(" ", ".") if opcode == "INST" else f"extension {argument}"
            raise Refused(f"{named} (opcode {opcode})")
        elif opcode not in _PASS:
            method = getattr(self, f"_{opcode.lower()}", None)
            if method is None:
                raise Refused(f"the opcode {opcode}")
            method(argument)

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        """The top of the stack. Raises ValueError if it is not of `kind`."""
        top = self._stack.pop()
        if not isinstance(top, kind):
            raise ValueError(f"a {type(top).__name__} where none can be")
        return top

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"items for a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _append(self, _: Any) -> None:
        item = self.pop()
        self._top(list).append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.pop(), plain(self.pop())
        self._top(dict)[key] = value

    def _setitems(self, _: Any) -> None:
        items = _couples(self._since_mark())
        self._top(dict).update(items)

    def _additems(self, _: Any) -> None:
        items = self._since_mark()
        self._top(set).update(map(plain, items))

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(str), self.pop(str)
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        known = full in self._rules.functions or full in self._rules.names
        if not known and not self._rules.is_class(module, name):
            raise Refused(full)
        self._stack.append(Global(full))

    def _reduce(self, _: Any) -> None:
        arguments, called = self.pop(tuple), self.pop()
        if not isinstance(called, Global) or called.name not in self._rules.functions:
            raise Refused(f"a call of {called.name if isinstance(called, Global) else type(called).__name__}")
        for argument in arguments:
            self._count(argument)
        self._stack.append(self._rules.functions[called.name](*arguments))

    def _newobj(self, _: Any) -> None:
        arguments, cls = self.pop(tuple), self.pop(Global)
        if arguments or not self._rules.is_class(*cls.name.rsplit(".", 1)):
            raise Refused(f"an object of {cls.name} made with {len(arguments)} arguments")
        self._stack.append(Instance(cls.name))

    def _build(self, _: Any) -> None:
        state, built = self.pop(), self._stack[-1]
        if isinstance(built, Instance) and isinstance(state, dict):
            self._count(state)
            built.state.update(pairs(state.items()))
        elif not isinstance(built, dict) and not self._rules.set_state(built, state):
            # A dictionary's is the _metadata of a state dict, versions of modules: not needed.
            raise Refused(f"a state of type {type(state).__name__} for a {type(built).__name__}")

    def _count(self, container: Any) -> None:
        self._copied += len(container) if isinstance(container, _CONTAINERS) else 0
        if self._copied > MAX_COPIED:
            raise Refused(f"more than {MAX_COPIED} items")

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._rules.persistent(self.pop()))
