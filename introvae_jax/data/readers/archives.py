"""Zip and tar archives, read in place: nothing is ever unpacked to disk."""

from collections.abc import Sequence
import dataclasses
import errno
import functools
import os
import pathlib
import stat
import struct
import tarfile
import zipfile

from introvae_jax.data.images import MAX_BYTES, BadImage
from introvae_jax.data.readers.base import digest, natural, unique, unsafe
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
        with self.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), length, offset)
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
        if member.flag_bits & 1:
            raise BadImage("encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without bound
            raise BadImage("packed in a way that is neither stored nor deflated")
        try:
            with archive.open(member) as file:
                return file.read(member.file_size + 1)
        except MemoryError:
            raise
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):
                raise
            raise BadImage("damaged: its place is outside the archive") from error  # a seek to before the start
        except Exception as error:  # bad checksums, unknown compressions, passwords: each has a type of its own
            raise BadImage(str(error) or type(error).__name__) from error


def open_tar(path: pathlib.Path, _: int) -> Tar:
    """The files of a tar. An archive that is cut short or damaged shows what it holds up to there."""
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(path, "r:") as archive:
            while member := archive.next():
                members.append(member)
                if archive.offset < member.offset_data:  # tarfile would read it again and again
                    raise ValueError("a size below zero")
            end = archive.offset
        problem = _after(path, end)
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    if problem and not members:
        raise UserError(f"{path}: not a whole tar archive ({problem})")
    passed_over = [(f"what follows {members[-1].name}", f"the archive is damaged there ({problem})")] if problem else []
    files = []
    for member in members:
        kind = "a sparse file" if member.issparse() else "" if member.isreg() else "a link or a device"
        if not (reason := unsafe(member.name) or kind or ("a size below zero" if member.size < 0 else "")):
            files.append(member)
        elif not member.isdir():
            passed_over.append((member.name, reason))
    files.sort(key=lambda member: natural(member.name))
    names = unique(member.name for member in files)
    sizes = (f"{name} {member.size}" for name, member in zip(names, files, strict=True))
    return Tar(path, names, [(m.offset_data, m.size) for m in files], passed_over, digest(sizes))


def _after(path: pathlib.Path, end: int) -> str:
    """What is wrong with what follows the last member: a whole tar ends with zeros alone, two blocks or more."""
    with path.open("rb") as file:
        file.seek(end)
        first = file.read(2 * tarfile.BLOCKSIZE)
        if len(first) < 2 * tarfile.BLOCKSIZE:
            return "it ends early"
        rest = iter(lambda: file.read(2**20), b"")
        return "" if not any(first) and not any(map(any, rest)) else "no header where one should be"


def open_zip(path: pathlib.Path, _: int) -> Zip:
    """The files of a zip."""
    try:
        members = list(enumerate(_archive(path).infolist()))
        if len(members) % 2**16 != (declared := _declared(path)):  # a damaged length in the list hides what follows
            raise ValueError(f"{declared} members are declared, {len(members)} are listed")
    except Exception as error:  # zipfile has no one type for what it cannot read
        raise UserError(f"{path}: not a whole zip archive ({error})") from error
    members = [(place, member) for place, member in members if not member.filename.endswith("/")]
    reasons = {place: _reason(member) for place, member in members}
    files = sorted((item for item in members if not reasons[item[0]]), key=lambda item: natural(item[1].filename))
    names = unique(member.filename for _, member in files)
    passed_over = [(m.filename or f"member {place}", reasons[place]) for place, m in members if reasons[place]]
    sizes = (f"{name} {member.file_size} {member.CRC}" for name, (_, member) in zip(names, files, strict=True))
    return Zip(path, names, [place for place, _ in files], passed_over, digest(sizes))


def _declared(path: pathlib.Path) -> int:
    """The number of members, modulo 2**16, by the record at the end of a zip."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 22 + 2**16), os.SEEK_END)
        tail = file.read()
    return struct.unpack_from("<H", tail, tail.rindex(b"PK\5\6") + 10)[0]


def _reason(member: zipfile.ZipInfo) -> str:
    """Why a member of a zip is passed over, "" if it is not."""
    if not member.filename:
        return "no name"
    return unsafe(member.filename) or ("a link" if stat.S_ISLNK(member.external_attr >> 16) else "")


@functools.cache
def _archive(path: pathlib.Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
