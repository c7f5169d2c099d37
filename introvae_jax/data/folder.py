"""Reads a folder or an archive without preparing it. All images are decoded once before training starts.

Unreadable files are skipped; one warning lists them.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import itertools
import os
from typing import Any

import numpy as np

from introvae_jax import disk, progress
from introvae_jax.data import images, readers
from introvae_jax.data.readers.base import Reader, digest
from introvae_jax.errors import UserError, warn

NAMES_IN_WARNING = 5


class Folder:
    """The images of one split; a `source.Source`. They are decoded at each access unless `cache` holds them."""

    def __init__(self, reader: Reader, entries: Sequence[int], target: images.Target, cache: np.ndarray | None):
        self.names = [reader.names[i] for i in entries]
        self._reader, self._entries, self._target, self._cache = reader, entries, target, cache

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self._cache is not None:
            return self._cache[indices]
        return np.stack([self._read(i) for i in np.arange(len(self))[indices]])

    def _read(self, index: int) -> np.ndarray:
        try:
            return images.decode(self._reader.read(self._entries[index]), self._target).array
        except images.BadImage as error:
            name = self.names[index]
            raise UserError(f"{name}: was readable at the start of training, but no longer is: {error}") from error


def open_splits(
    path: str, target: images.Target, *, test_fraction: float, cache_gib: float
) -> tuple[Folder, Folder, str]:
    """Opens the images at `path`: training split, test split and identity.

    test_fraction: share of test images, at least one image, chosen by the hash of their names and so independent of the
    order of the directory. cache_gib: decoded images are kept in memory if they fit in it. Raises UserError if `path`
    does not exist or has fewer than two readable images.
    """
    remedy = f"name a folder or an archive of {images.FORMAT_WORDS} images with --config.data.path=DIR"
    if not path:
        raise UserError(f"config.data.path is empty: {remedy}")
    place = disk.expand(path).absolute()
    if not place.exists():
        raise UserError(f"config.data.path = {path!r}: no such folder; put the images there or {remedy}")
    reader = readers.open_reader(place, size=target.size)
    cached = len(reader.names) * target.size**2 * target.channels <= cache_gib * 2**30
    decoded = _decode(reader, target)
    arrays = dict(decoded) if cached else {}
    usable = list(arrays) if cached else [i for i, _ in decoded]
    if len(usable) < 2:
        raise UserError(f"config.data.path = {path!r}: {len(usable)} readable images, two are needed; {remedy}")

    readable = sorted(usable, key=lambda i: digest([reader.names[i]]))
    num_test = min(max(1, round(test_fraction * len(readable))), len(readable) - 1)

    def split(part: list[int]) -> Folder:
        cache = np.empty((len(part), target.size, target.size, target.channels), np.uint8) if cached else None
        if cache is not None:
            for row, i in enumerate(part):  # moves one at a time, so that no image is in memory twice
                cache[row] = arrays.pop(i)
        return Folder(reader, part, target, cache)

    identity = digest([reader.fingerprint, *(reader.names[i] for i in readable)])
    return split(readable[num_test:]), split(readable[:num_test]), identity


def decode_all(reader: Reader, target: images.Target) -> dict[int, np.ndarray]:
    """Decodes all images of `reader`: index -> uint8 [size, size, channels] of the readable ones, in order.

    One warning lists the skipped and the converted images.
    """
    return dict(_decode(reader, target))


def _decode(reader: Reader, target: images.Target) -> Iterator[tuple[int, np.ndarray]]:

    def decode(encoded: bytes | np.ndarray) -> tuple[np.ndarray, Sequence[str]]:
        decoded = images.decode(encoded, target)
        return decoded.array, [change for change in decoded.changes if not change.startswith("enlarged")]

    return read_all(reader, decode)


def read_all(
    reader: Reader, decode: Callable[[bytes | np.ndarray], tuple[Any, Sequence[str]]]
) -> Iterator[tuple[int, Any]]:
    """Yields the index and the decoded value of each readable entry, in order.

    decode: encoded image -> value and the changes that were made. At the end, one warning lists the skipped and the
    changed entries.
    """

    def attempt(index: int) -> tuple[Any, Sequence[str], str]:
        try:
            return *decode(reader.read(index)), ""
        except images.BadImage as error:
            return None, (), str(error)

    count = len(reader.names)
    used, converted = 0, []
    skipped = [f"{name} ({why})" for name, why in reader.skipped if why != "hidden"]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = progress.counted(pool.map(attempt, range(count)), "reading images", count)
        for i, (value, changes, reason) in enumerate(results):
            if not reason:
                used += 1
                yield i, value
            if changes:
                converted.append(f"{reader.names[i]} ({', '.join(changes)})")
            if reason:
                skipped.append(f"{reader.names[i]} ({reason})")
    if skipped or converted:
        total = f"{used} are used" if skipped else ""
        summaries = _summary("skipped", skipped), _summary("converted", converted), total
        warn("images " + "; ".join(filter(None, summaries)))


def _summary(verb: str, notes: list[str]) -> str:
    """ "skipped 3: a (why), b (why), ..." """
    if not notes:
        return ""
    names = ", ".join(itertools.islice(sorted(notes), NAMES_IN_WARNING))
    return f"{verb} {len(notes)}: {names}" + (", ..." if len(notes) > NAMES_IN_WARNING else "")
