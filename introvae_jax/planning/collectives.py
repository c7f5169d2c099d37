"""Counts the collectives of a compiled program in its HLO text."""

import collections
from collections.abc import Iterator
import dataclasses
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "collective-broadcast")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4,
         "s64": 8, "u64": 8, "f64": 8}  # fmt: skip

# `%name = SHAPE all-reduce(` or `all-reduce-start(`, whose -done is not counted; SHAPE may be a tuple of arrays.
_CALL = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.+?) ({'|'.join(KINDS)})(-start)?\((.*)$", re.MULTILINE)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation: its kind, number of arrays, total number of elements, and bytes."""

    kind: str
    arrays: int
    elements: int
    bytes: int


def find(program: str) -> Iterator[Collective]:
    """Yields the collectives in the optimised HLO text of a program, in order."""
    for match in _CALL.finditer(program):
        result, kind, started, _ = match.groups()
        arrays = [
            (BYTES[dtype], math.prod(int(side) for side in dims.split(",") if side))
            for dtype, dims in _ARRAY.findall(result)
        ]
        if started and kind != "all-reduce":  # theirs gives (operands, results), an all-reduce's the results alone
            arrays = arrays[len(arrays) // 2 :]
        yield Collective(
            kind, len(arrays), sum(count for _, count in arrays), sum(size * count for size, count in arrays)
        )


def by_kind(program: str) -> dict[str, tuple[int, int]]:
    """The collectives by kind: {kind: (number, bytes)}."""
    totals: dict[str, tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for one in find(program):
        number, size = totals[one.kind]
        totals[one.kind] = number + 1, size + one.bytes
    return dict(totals)
