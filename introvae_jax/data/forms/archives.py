"""Zip and tar archives, read in place: nothing is ever unpacked to disk."""

from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
import tarfile
import zipfile

from introvae_jax.data.forms.base import digest, natural, unique, unsafe
from introvae_jax.data.images import MAX_BYTES, BadImage
from introvae_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tar:
    """Members of an uncompressed tar by their place in it; a `base.Form`."""

    path: pathlib.Path
    names: Sequence[str]
    places: Sequence[tuple[int, int]]  # offset and length in bytes
    passed_over: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> bytes:
        offset, length = self.places[index]
        if length > MAX_BYTES:
            raise BadImage(f"more than {MAX_BYTES >> 20} MiB")
        data = os.pread(_descriptor(self.path), length, offset)
        if len(data) < length:
            raise BadImage("cut short: the archive ends early")
        return data


@dataclasses.dataclass(frozen=True)
class Zip:
    """Members of a zip; a `base.Form`."""

    path: pathlib.Path
    names: Sequence[str]
    members: Sequence[int]  # places in the archive's own list
    passed_over: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> bytes:
        archive = _archive(self.path)
        member = archive.infolist()[self.members[index]]
        if member.file_size > MAX_BYTES:
            raise BadImage(f"unpacks to more than {MAX_BYTES >> 20} MiB")
        try:
            return archive.read(member)
        except Exception as error:  # bad checksums, unknown compressions, passwords: each has a type of its own
            raise BadImage(str(error) or type(error).__name__) from error


def open_tar(path: pathlib.Path, _: int) -> Tar:
    """The files of a tar. An archive that is cut short shows what it still holds."""
    members: list[tarfile.TarInfo] = []
    passed_over: list[tuple[str, str]] = []
    try:
        with tarfile.open(path, "r:") as archive:
            while member := archive.next():
                members.append(member)
    except (tarfile.TarError, OSError, ValueError) as error:
        if not members:
            raise UserError(f"{path}: not a tar archive ({error})") from error
        passed_over.append((f"what follows {members[-1].name}", f"the archive is damaged there ({error})"))
    members = [member for member in members if not member.isdir()]
    files = [member for member in members if member.isfile() and not unsafe(member.name)]
    passed_over += [(m.name, unsafe(m.name) or "a link or a device") for m in members if m not in set(files)]
    files.sort(key=lambda member: natural(member.name))
    names = unique(member.name for member in files)
    sizes = (f"{name} {member.size}" for name, member in zip(names, files, strict=True))
    return Tar(path, names, [(m.offset_data, m.size) for m in files], passed_over, digest(sizes))


def open_zip(path: pathlib.Path, _: int) -> Zip:
    """The files of a zip."""
    try:
        members = list(enumerate(_archive(path).infolist()))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole zip archive ({error})") from error
    members = [(place, member) for place, member in members if not member.is_dir()]
    files = [(place, member) for place, member in members if not unsafe(member.filename)]
    files.sort(key=lambda item: natural(item[1].filename))
    names = unique(member.filename for _, member in files)
    passed_over = [(m.filename, unsafe(m.filename)) for _, m in members if unsafe(m.filename)]
    sizes = (f"{name} {member.file_size} {member.CRC}" for name, (_, member) in zip(names, files, strict=True))
    return Zip(path, names, [place for place, _ in files], passed_over, digest(sizes))


@functools.cache
def _descriptor(path: pathlib.Path) -> int:
    """The open file, one for each process."""
    return os.open(path, os.O_RDONLY)


@functools.cache
def _archive(path: pathlib.Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
