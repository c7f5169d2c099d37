"""The interfaces of readers and formats, and functions that readers share."""

from collections.abc import Iterable, Sequence
import os
import pathlib
import re
from typing import Protocol

import numpy as np

from introvae_jax import hashes


class Reader(Protocol):
    """Images by index. A reader is picklable, and opens its file again in each process that reads.

    names: of the images, all different. splits: "train" or "test" for each image, None if the format has no splits.
    skipped: (name, reason) of entries that cannot be images. fingerprint: a digest of names and sizes, which detects
    changes of the source without reading it.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def splits(self) -> Sequence[str] | None: ...
    @property
    def skipped(self) -> Sequence[tuple[str, str]]: ...
    @property
    def fingerprint(self) -> str: ...

    def read(self, index: int) -> bytes | np.ndarray:
        """The encoded image, or uint8 [H, W, C] with C 1 or 3. Raises `images.BadImage` if it cannot be read."""


class Format(Protocol):
    """A module of this package that reads one format. NAME: the name of the format in errors."""

    NAME: str

    def recognizes(self, path: pathlib.Path, head: bytes, /) -> bool:
        """True if `path` has this format. head: the first 512 bytes of a file, b"" for a folder."""

    def open_reader(self, path: pathlib.Path, size: int, /) -> Reader:
        """Opens a source. size: the resolution to read, for formats with several. Raises UserError if it is damaged."""


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sorting key that puts "9.png" before "10.png". Different names have different keys."""
    parts = (part.lstrip("0") if part.isdecimal() else part for part in re.split(r"([0-9]+)", name))
    return [(len(part), part) if place % 2 else (0, part) for place, part in enumerate(parts)], name


def unsafe(name: str) -> str:
    """The reason to skip a member of an archive because of its name, "" if there is none."""
    parts = pathlib.PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "its name leads out of the archive"
    return "hidden file" if any(part.startswith(".") or part == "__MACOSX" for part in parts) else ""


def unique(names: Iterable[str]) -> list[str]:
    """The names, with a number appended to repeated ones."""
    counts: dict[str, int] = {}
    out: list[str] = []
    taken = set()
    for name in names:
        candidate = name
        while candidate in taken:
            counts[name] = counts.get(name, 1) + 1
            candidate = f"{name}#{counts[name]}"
        taken.add(candidate)
        out.append(candidate)
    return out


def digest(lines: Iterable[str]) -> str:
    """The first 16 digits of the SHA-256 of all lines."""
    return hashes.sha256(os.fsencode("\n".join(lines)))[:16]
