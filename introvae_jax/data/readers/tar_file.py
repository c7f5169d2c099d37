"""Tar archives without compression, read in place: nothing is unpacked to disk."""

from collections.abc import Sequence
import dataclasses
import pathlib
import tarfile

from introvae_jax.data.images import MAX_BYTES, BadImage
from introvae_jax.data.readers.base import digest, natural, unique, unsafe
from introvae_jax.errors import UserError

NAME = "tar"


@dataclasses.dataclass(frozen=True)
class Tar:
    """Members of a tar by their offset; a `base.Reader`."""

    path: pathlib.Path
    names: Sequence[str]
    places: Sequence[tuple[int, int]]  # offset and length in bytes
    skipped: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> bytes:
        offset, length = self.places[index]
        if length > MAX_BYTES:
            raise BadImage(f"more than {MAX_BYTES >> 20} MiB")
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) < length:
            raise BadImage("cut short: the archive ends early")
        return data


def recognizes(path: pathlib.Path, head: bytes) -> bool:
    """True for a tar. Old ones have no signature; the name must do."""
    return head[257:262] == b"ustar" or (path.suffix == ".tar" and path.is_file())


def open_reader(path: pathlib.Path, _: int) -> Tar:
    """The files of a tar. If the archive is truncated or damaged, the files before the damage are read."""
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(path, "r:") as archive:
            while member := archive.next():
                members.append(member)
                if archive.offset < member.offset_data:  # tarfile would read it forever
                    raise ValueError("a size below zero")
            end = archive.offset
        problem = _after(path, end)
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    if problem and not members:
        raise UserError(f"{path}: not a whole tar archive ({problem})")
    skipped = [(f"what follows {members[-1].name}", f"the archive is damaged there ({problem})")] if problem else []
    files = []
    for member in members:
        kind = "a sparse file" if member.issparse() else "" if member.isreg() else "a link or a device"
        if not (reason := unsafe(member.name) or kind or ("a size below zero" if member.size < 0 else "")):
            files.append(member)
        elif not member.isdir():
            skipped.append((member.name, reason))
    files.sort(key=lambda member: natural(member.name))
    names = unique(member.name for member in files)
    sizes = (f"{name} {member.size}" for name, member in zip(names, files, strict=True))
    return Tar(path, names, [(m.offset_data, m.size) for m in files], skipped, digest(sizes))


def _after(path: pathlib.Path, end: int) -> str:
    """The damage after the last member, "" if there is none: an intact tar ends with two or more blocks of zeros."""
    with path.open("rb") as file:
        file.seek(end)
        first = file.read(2 * tarfile.BLOCKSIZE)
        if len(first) < 2 * tarfile.BLOCKSIZE:
            return "it ends early"
        rest = iter(lambda: file.read(2**20), b"")
        return "" if not any(first) and not any(map(any, rest)) else "no header where one should be"
