"""Readers of images, one module for each format.

A reader lists its images by name and reads one at a time, from any process, without unpacking anything to disk. To add
a format, write a module like `base.Format` and add it to FORMATS (docs/extending.md has an example).
"""

import os
import pathlib

from introvae_jax import disk
from introvae_jax.data.readers import avatars, files, hdf5, lmdb, tar_file, tfds, tfrecords, zip_file
from introvae_jax.data.readers.base import Format, Reader, digest
from introvae_jax.errors import UserError

# The first that recognizes a path reads it.
FORMATS: tuple[Format, ...] = (zip_file, hdf5, tar_file, lmdb, tfrecords, files)
_HEAD_BYTES = 512
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"7z\xbc\xaf": "7z x", b"Rar!": "unrar x"}


def open_reader(source: str | os.PathLike[str], *, size: int, num_images: int = 0) -> Reader:
    """Opens `source`: a path, "tfds:NAME[/CONFIG]" or "avatars[:STYLE]".

    size: the wanted resolution, for formats that hold several. num_images: how many avatars are drawn, 0 for 10,000.
    Raises UserError if it is not a source of images.
    """
    kind, colon, rest = str(source).partition(":")
    if kind == "avatars":
        if not colon and pathlib.Path(source).exists():
            raise UserError("avatars: a folder here has the same name; write ./avatars for it, or avatars:open-peeps")
        return avatars.open_avatars(rest, size, num_images)
    if kind == "tfds" and colon:
        return tfds.open_tfds(rest)
    path = disk.expand(source)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: neither a file nor a folder")
    head = _head(path)
    for signature, program in _COMPRESSED.items():
        if head.startswith(signature):
            raise UserError(f"{path}: a compressed archive has no random access; unpack it with {program}")
    if (found := _format_of(path, head)) is None:
        *names, last = (each.NAME for each in FORMATS)
        raise UserError(f"{path}: not a {', '.join(names)} or {last} of images")
    return found.open_reader(path, size)


def open_places(places: str, *, size: int) -> Reader:
    """Opens an archive, or files and folders separated by commas. Raises UserError for a place that does not exist."""
    path = disk.expand(places)
    if "," not in places and path.is_file() and _format_of(path, _head(path)):
        return open_reader(path, size=size)
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    for path in map(disk.expand, places.split(",")):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        folder = files.open_reader(path) if path.is_dir() else None
        names += [str(path / name) for name in folder.names] if folder else [str(path)]
        skipped += folder.skipped if folder else []
    return files.Files(pathlib.Path(), names, skipped, digest(names))


def _format_of(path: pathlib.Path, head: bytes) -> Format | None:
    return next((each for each in FORMATS if each.recognizes(path, head)), None)


def _head(path: pathlib.Path) -> bytes:
    """The first bytes of a file, b"" for a folder."""
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
