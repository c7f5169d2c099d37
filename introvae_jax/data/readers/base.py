"""What every form of images offers."""

from collections.abc import Iterable, Sequence
import hashlib
import os
import pathlib
import re
from typing import Protocol

import numpy as np


class Form(Protocol):
    """Images by index. Picklable, so that worker processes get a copy; files are opened where they are read.

    names: of the entries, none twice. splits: "train" or "test" for each entry, if the set has a split of its
    own. passed_over: (name, reason) of what is there and cannot be an image. fingerprint: a digest of names
    and sizes, by which a changed source is noticed without reading it.
    """

    names: Sequence[str]
    splits: Sequence[str] | None
    passed_over: Sequence[tuple[str, str]]
    fingerprint: str

    def read(self, index: int) -> bytes | np.ndarray:
        """The encoded image, or uint8 [H, W, C]. Raises BadImage if it cannot be read."""


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sorting key by which "9.png" comes before "10.png", and no two names are equal."""
    parts = (part.lstrip("0") if part.isdecimal() else part for part in re.split(r"([0-9]+)", name))
    return [(len(part), part) if place % 2 else (0, part) for place, part in enumerate(parts)], name


def unsafe(name: str) -> str:
    """Why the name of an archive's member is refused, "" if it is not."""
    parts = pathlib.PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "its name leads out of the archive"
    return "hidden file" if any(part.startswith(".") or part == "__MACOSX" for part in parts) else ""


def unique(names: Iterable[str]) -> list[str]:
    """The names, repeated ones numbered."""
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
    """A short hash of all lines."""
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]
