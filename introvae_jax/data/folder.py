"""Any folder of images. Every file is decoded once before training, so that nothing surprises the run later."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import hashlib
import itertools
import os
import pathlib
from typing import Any

import numpy as np
import tqdm

from introvae_jax.data import images
from introvae_jax.errors import UserError, warn

NAMES_IN_WARNING = 5


class Folder:
    """Images of one split, decoded at each access unless `cache` holds them."""

    def __init__(self, paths: Sequence[pathlib.Path], options: Mapping[str, Any], cache: np.ndarray | None):
        self.paths, self._options, self._cache = paths, options, cache

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self._cache is not None:
            return self._cache[indices]
        return np.stack([self._read(self.paths[i]) for i in np.arange(len(self))[indices]])

    def _read(self, path: pathlib.Path) -> np.ndarray:
        try:
            return images.read(path, **self._options)[0]
        except images.BadImage as error:
            raise UserError(f"{path} was an image when training began and is none now: {error}") from error


def open_splits(
    path: str, *, size: int, channels: int, crop: str, resize: str, test_fraction: float, cache_gib: float
) -> tuple[Folder, Folder, str]:
    """Training split, test split and identity of the images below `path`.

    Each image's place is decided by the hash of its relative name, so it does not depend on the order
    of the directory. Files that are no whole image are left out and named in one warning.
    Raises UserError if the folder is missing or holds fewer than two images.
    """
    root = pathlib.Path(path).expanduser()
    way_out = "name a folder of png, jpg or webp images with --config.data.path=DIR"
    if not path:
        raise UserError(f"config.data.path is empty: {way_out}")
    if not root.is_dir():
        raise UserError(f"config.data.path = {path!r}: no such folder; put the images there or {way_out}")
    files = sorted(_walk(root), key=lambda file: _digest(_name(file, root)))
    options = {"size": size, "channels": channels, "crop": crop, "resize": resize}
    cached = len(files) * size * size * channels <= cache_gib * 2**30
    images_of = decode_all(files, options, keep=cached)
    if len(images_of) < 2:
        raise UserError(f"config.data.path = {path!r}: {len(images_of)} readable images, two are needed; {way_out}")

    good, num_test = list(images_of), max(1, round(test_fraction * len(images_of)))
    num_test = min(num_test, len(good) - 1)

    def split(part: list[pathlib.Path]) -> Folder:
        cache = np.empty((len(part), size, size, channels), np.uint8) if cached else None
        if cached:
            for i, file in enumerate(part):  # one by one, so that no image is held twice
                cache[i] = images_of.pop(file)
        return Folder(part, options, cache)

    identity = _digest("\n".join(f"{_name(file, root)} {file.stat().st_size}" for file in good))
    return split(good[num_test:]), split(good[:num_test]), identity


def find(places: str) -> list[pathlib.Path]:
    """Files by name: of each place, separated by commas, the file itself or all files below the folder."""
    files = []
    for place in (pathlib.Path(name).expanduser() for name in places.split(",")):
        if not place.exists():
            raise UserError(f"{place}: no such file or folder")
        files += sorted(_walk(place)) if place.is_dir() else [place]
    return files


def decode_all(
    files: Sequence[pathlib.Path], options: Mapping[str, Any], *, keep: bool = True
) -> dict[pathlib.Path, np.ndarray | None]:
    """The whole images among `files`, in their order, decoded by `images.read(file, **options)`.

    The arrays are thrown away unless `keep`. All files that are skipped or converted are named in one warning.
    """

    def decode(file: pathlib.Path) -> tuple[bool, np.ndarray | None, str]:
        if file.suffix.lower() not in images.SUFFIXES or not file.is_file():
            return False, None, "not png, jpg or webp"
        try:
            array, conversion = images.read(file, **options)
        except images.BadImage as error:
            return False, None, str(error)
        return True, array if keep else None, conversion

    good, skipped, converted = {}, [], []
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = tqdm.tqdm(pool.map(decode, files), "reading images", len(files), delay=2, leave=False, disable=None)
        for file, (whole, array, remark) in zip(files, results, strict=True):
            if whole:
                good[file] = array
            if remark:
                (converted if whole else skipped).append(f"{file} ({remark})")
    if skipped or converted:
        remarks = [_summary("skipped", skipped), _summary("converted", converted)]
        warn("images " + "; ".join(filter(None, remarks)))
    return good


def _walk(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """All files below `root` that are not hidden; links are followed, each folder is entered once."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}") from error

    entered = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        if os.path.realpath(folder) in entered:
            subfolders.clear()
            continue
        entered.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (pathlib.Path(folder, name) for name in names if not name.startswith("."))


def _name(file: pathlib.Path, root: pathlib.Path) -> str:
    return file.relative_to(root).as_posix()


def _summary(verb: str, notes: list[str]) -> str:
    """ "skipped 3: a (why), b (why), ..." """
    if not notes:
        return ""
    names = ", ".join(itertools.islice(sorted(notes), NAMES_IN_WARNING))
    return f"{verb} {len(notes)}: {names}" + (", ..." if len(notes) > NAMES_IN_WARNING else "")


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
