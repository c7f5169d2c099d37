"""Zip archives, read in place: nothing is unpacked to disk."""

from collections.abc import Sequence
import dataclasses
import errno
import functools
import os
import pathlib
import stat
import struct
import zipfile

from introvae_jax.data.images import MAX_BYTES, BadImage
from introvae_jax.data.readers.base import digest, natural, unique, unsafe
from introvae_jax.errors import UserError

NAME = "zip"


@dataclasses.dataclass(frozen=True)
class Zip:
    """Members of a zip; a `base.Reader`."""

    path: pathlib.Path
    names: Sequence[str]
    members: Sequence[int]  # indices in the archive's directory
    skipped: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> bytes:
        archive = _archive(self.path)
        member = archive.infolist()[self.members[index]]
        if member.file_size > MAX_BYTES:
            raise BadImage(f"unpacks to more than {MAX_BYTES >> 20} MiB")
        if member.flag_bits & 1:
            raise BadImage("encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
            raise BadImage("packed in a way that is neither stored nor deflated")
        try:
            with archive.open(member) as file:
                return file.read(member.file_size + 1)
        except MemoryError:
            raise
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):
                raise
            raise BadImage("damaged: its place is outside the archive") from error  # a seek before the start
        except Exception as error:  # zipfile raises many types: bad checksums, passwords
            raise BadImage(str(error) or type(error).__name__) from error


def recognizes(path: pathlib.Path, head: bytes) -> bool:
    """True for a zip, an empty one too."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def open_reader(path: pathlib.Path, _: int) -> Zip:
    """The files of a zip."""
    try:
        members = list(enumerate(_archive(path).infolist()))
        if len(members) % 2**16 != (declared := _declared(path)):  # a damaged length in the directory hides the rest
            raise ValueError(f"{declared} members are declared, {len(members)} are listed")
    except Exception as error:  # zipfile has no one type for what it cannot read
        raise UserError(f"{path}: not a whole zip archive ({error})") from error
    members = [(place, member) for place, member in members if not member.filename.endswith("/")]
    reasons = {place: _reason(member) for place, member in members}
    files = sorted((item for item in members if not reasons[item[0]]), key=lambda item: natural(item[1].filename))
    names = unique(member.filename for _, member in files)
    skipped = [(m.filename or f"member {place}", reasons[place]) for place, m in members if reasons[place]]
    sizes = (f"{name} {member.file_size} {member.CRC}" for name, (_, member) in zip(names, files, strict=True))
    return Zip(path, names, [place for place, _ in files], skipped, digest(sizes))


def _declared(path: pathlib.Path) -> int:
    """The number of members, modulo 2**16, in the record at the end of a zip."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 22 + 2**16), os.SEEK_END)
        tail = file.read()
    return struct.unpack_from("<H", tail, tail.rindex(b"PK\5\6") + 10)[0]


def _reason(member: zipfile.ZipInfo) -> str:
    """The reason to skip a member of a zip, "" if there is none."""
    if not member.filename:
        return "no name"
    return unsafe(member.filename) or ("a link" if stat.S_ISLNK(member.external_attr >> 16) else "")


@functools.cache
def _archive(path: pathlib.Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
