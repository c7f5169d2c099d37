"""The forms in which people keep images: folders, archives, other programs' data sets, and drawn ones.

Each form lists what it holds by name and reads one entry at a time, from any process, without unpacking
anything to disk. To add one, write a file here and its line in `open_form`.
"""

from collections.abc import Callable
import os
import pathlib

from introvae_jax import disk
from introvae_jax.data.readers import archives, avatars, files, hdf5, lmdb, tfds, tfrecords
from introvae_jax.data.readers.base import Form, digest
from introvae_jax.errors import UserError

# How a file says what it is, whatever its name.
_BY_FIRST_BYTES = {
    b"PK\x03\x04": archives.open_zip,
    b"PK\x05\x06": archives.open_zip,
    b"\x89HDF\r\n\x1a\n": hdf5.open_hdf5,
}
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"7z\xbc\xaf": "7z x", b"Rar!": "unrar x"}


def open_places(places: str, *, size: int) -> Form:
    """An archive, or files and folders separated by commas. Raises UserError for a place that is not there."""
    if "," not in places and _archive_kind(disk.expand(places)):
        return open_form(disk.expand(places), size=size)
    names, passed_over = [], []
    for place in places.split(","):
        path = disk.expand(place)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        folder = files.open_folder(path) if path.is_dir() else None
        names += [str(path / name) for name in folder.names] if folder else [str(path)]
        passed_over += folder.passed_over if folder else []
    return files.Files(pathlib.Path(), names, passed_over, digest(names))


def open_form(source: str | os.PathLike, *, size: int, num_images: int = 0) -> Form:
    """What `source` holds: a path, "tfds:NAME[/CONFIG]" or "avatars[:STYLE]".

    size: the resolution that is wanted, for forms that hold several. num_images: how many avatars are drawn.
    Raises UserError for what is no source of images.
    """
    kind, colon, rest = str(source).partition(":")
    if kind == "avatars":
        if not colon and pathlib.Path(source).exists():
            raise UserError("avatars: a folder here is named so too; write ./avatars for it, or avatars:open-peeps")
        return avatars.open_avatars(rest, size, num_images)
    if kind == "tfds" and colon:
        return tfds.open_tfds(rest)
    path = disk.expand(source)
    if path.is_dir():
        if (path / "data.mdb").is_file():
            return lmdb.open_lmdb(path)
        entries = sorted(path.iterdir())
        records = [entry for entry in entries if ".tfrecord" in entry.name and entry.is_file()]
        others = [entry for entry in entries if entry not in records]
        return tfrecords.open_tfrecords(records, size, others) if records else files.open_folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not path.is_file():
        raise UserError(f"{path}: neither a file nor a folder")
    with path.open("rb") as file:
        head = file.read(8)
    for first, program in _COMPRESSED.items():
        if head.startswith(first):
            raise UserError(f"{path}: a compressed archive cannot be read at random places; unpack it with {program}")
    if open_archive := _archive_kind(path):
        return open_archive(path, size)
    raise UserError(f"{path}: not a folder, zip, tar, TFRecord, HDF5 or LMDB of images")


def _archive_kind(path: pathlib.Path) -> Callable[[pathlib.Path, int], Form] | None:
    """What opens the archive at `path`, None if that is no archive."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(512)
    for first, open_archive in _BY_FIRST_BYTES.items():
        if head.startswith(first):
            return open_archive
    if head[257:262] == b"ustar" or path.suffix == ".tar":
        return archives.open_tar
    return (lambda path, size: tfrecords.open_tfrecords([path], size)) if ".tfrecord" in path.name else None
