"""Images straight from a folder or an archive. All are decoded once before training, so that nothing surprises it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import itertools
import os
from typing import Any

import numpy as np

from introvae_jax import disk, progress
from introvae_jax.data import images, readers
from introvae_jax.data.readers.base import Form, digest
from introvae_jax.errors import UserError, warn

NAMES_IN_WARNING = 5


class Folder:
    """Images of one split, decoded at each access unless `cache` holds them."""

    def __init__(self, form: Form, entries: Sequence[int], target: images.Target, cache: np.ndarray | None):
        self.names = [form.names[i] for i in entries]
        self._form, self._entries, self._target, self._cache = form, entries, target, cache

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self._cache is not None:
            return self._cache[indices]
        return np.stack([self._read(i) for i in np.arange(len(self))[indices]])

    def _read(self, index: int) -> np.ndarray:
        try:
            return images.decode(self._form.read(self._entries[index]), self._target).array
        except images.BadImage as error:
            name = self.names[index]
            raise UserError(f"{name} was an image when training began and is none now: {error}") from error


def open_splits(
    path: str, target: images.Target, *, test_fraction: float, cache_gib: float
) -> tuple[Folder, Folder, str]:
    """Training split, test split and identity of the images at `path`.

    Each image's place is decided by the hash of its name, so it does not depend on the order of the
    directory. What is no whole image is left out and named in one warning.
    Raises UserError if there is nothing at `path`, or fewer than two images.
    """
    way_out = f"name a folder or an archive of {images.FORMAT_WORDS} images with --config.data.path=DIR"
    if not path:
        raise UserError(f"config.data.path is empty: {way_out}")
    place = disk.expand(path).absolute()
    if not place.exists():
        raise UserError(f"config.data.path = {path!r}: no such folder; put the images there or {way_out}")
    form = readers.open_form(place, size=target.size)
    cached = len(form.names) * target.size**2 * target.channels <= cache_gib * 2**30
    arrays = decode_all(form, target, keep=cached)
    if len(arrays) < 2:
        raise UserError(f"config.data.path = {path!r}: {len(arrays)} readable images, two are needed; {way_out}")

    good = sorted(arrays, key=lambda i: digest([form.names[i]]))
    num_test = min(max(1, round(test_fraction * len(good))), len(good) - 1)

    def split(part: list[int]) -> Folder:
        cache = np.empty((len(part), target.size, target.size, target.channels), np.uint8) if cached else None
        if cached:
            for row, i in enumerate(part):  # one by one, so that no image is held twice
                cache[row] = arrays.pop(i)
        return Folder(form, part, target, cache)

    identity = digest([form.fingerprint, *(form.names[i] for i in good)])
    return split(good[num_test:]), split(good[:num_test]), identity


def decode_all(form: Form, target: images.Target, *, keep: bool = True) -> dict[int, np.ndarray | None]:
    """Index -> array of the whole images of `form`, in order.

    The arrays are thrown away unless `keep`. All that is skipped or converted is named in one warning.
    """

    def decode(encoded: bytes | np.ndarray) -> tuple[np.ndarray, Sequence[str]]:
        decoded = images.decode(encoded, target)
        return decoded.array, [change for change in decoded.changes if not change.startswith("enlarged")]

    return {i: array if keep else None for i, array in read_all(form, decode)}


def read_all(
    form: Form, decode: Callable[[bytes | np.ndarray], tuple[Any, Sequence[str]]]
) -> Iterator[tuple[int, Any]]:
    """Yields the index and what `decode` makes of each entry that can be read, in order.

    decode: returns a value and the changes that were made. At the end, one warning names all entries that cannot be
    read and all that were changed.
    """

    def attempt(index: int) -> tuple[Any, Sequence[str], str]:
        try:
            return *decode(form.read(index)), ""
        except images.BadImage as error:
            return None, (), str(error)

    count = len(form.names)
    used, converted = 0, []
    skipped = [f"{name} ({why})" for name, why in form.passed_over if why != "hidden"]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = progress.counted(pool.map(attempt, range(count)), "reading images", count)
        for i, (value, changes, reason) in enumerate(results):
            if not reason:
                used += 1
                yield i, value
            if changes:
                converted.append(f"{form.names[i]} ({', '.join(changes)})")
            if reason:
                skipped.append(f"{form.names[i]} ({reason})")
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
