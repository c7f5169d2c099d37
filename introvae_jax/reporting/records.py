"""JSON Lines files that a run appends to and reads again: metrics.jsonl and rollbacks.jsonl.

A killed run truncates its last line, and disks or editors may damage others. Damaged lines do not affect the rest.
"""

from collections.abc import Callable
import json
import os
import pathlib
from typing import Any

from introvae_jax import disk
from introvae_jax.errors import warn

Record = dict[str, Any]


def is_metrics(record: Any) -> bool:
    """True for a record of metrics.jsonl: an integer step, and numbers."""
    return isinstance(record, dict) and type(record.get("step")) is int and all(map(_is_number, record.values()))


def is_rollback(record: Any) -> bool:
    """True for a record of rollbacks.jsonl."""
    return isinstance(record, dict) and type(record.get("to")) is int and isinstance(record.get("reason"), str)


def read(path: pathlib.Path, is_valid: Callable[[Any], bool]) -> tuple[list[Record], dict[int, bytes]]:
    """The valid records, and the damaged lines by line number from 1. Blank and truncated last lines are ignored.

    path: local or in a bucket.
    """
    good, bad = [], {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:  # also for bytes that are not UTF-8
            record = None
        if is_valid(record):
            good.append(record)
        elif line.strip() and number < len(lines):
            bad[number] = line
    return good, bad


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a metrics.jsonl, without damaged lines and a truncated last one."""
    return read(disk.resolve(path), is_metrics)[0]


def clean(path: pathlib.Path, is_valid: Callable[[Any], bool]) -> list[Record]:
    """The valid records of a file, if it exists. Moves damaged lines to NAME.bad and warns with their numbers."""
    if not path.exists():
        return []
    good, bad = read(path, is_valid)
    if bad:
        aside = path.with_name(f"{path.name}.bad")
        before = aside.read_bytes() if aside.exists() else b""
        with disk.atomic_write(aside) as temporary:
            temporary.write_bytes(before + b"".join(line + b"\n" for line in bad.values()))
        write(path, good)
        numbers = ", ".join(map(str, bad))
        warn(
            f"{path}: damaged line{'s' if len(bad) > 1 else ''} {numbers}, moved to {aside}; the run continues without"
        )
    return good


def write(path: pathlib.Path, records: list[Record]) -> None:
    """Replaces the file atomically."""
    with disk.atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
