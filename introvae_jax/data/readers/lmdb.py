"""LMDB folders, the format of LSUN: an encoded image for each key."""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import functools
import multiprocessing
import pathlib
from typing import Any

from introvae_jax.data.images import BadImage
from introvae_jax.data.readers.base import digest
from introvae_jax.errors import UserError, install

NAME = "LMDB"


@dataclasses.dataclass(frozen=True)
class Lmdb:
    """Values by key; a `base.Reader`."""

    path: pathlib.Path
    names: Sequence[str]
    fingerprint: str
    skipped: Sequence[tuple[str, str]]
    splits: None = None

    def read(self, index: int) -> bytes:
        try:
            with _environment(self.path).begin() as transaction:
                data = transaction.get(self.names[index].encode("latin-1"))
        except _errors() as error:
            raise BadImage(str(error)) from error
        if data is None:
            raise BadImage("no longer there")
        return data


def recognizes(path: pathlib.Path, head: bytes) -> bool:
    """True for a folder with a database."""
    return (path / "data.mdb").is_file()


def open_reader(path: pathlib.Path, _: int) -> Lmdb:
    """All entries of the database in the folder `path`. Raises UserError if it is damaged."""
    size = (path / "data.mdb").stat().st_size
    try:
        environment = _environment(path)
        used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if size < used:  # reading beyond the end would kill the process
            raise UserError(f"{path}: cut short, {size} of {used} bytes are there")
    except _errors() as error:
        raise UserError(f"{path}: not a whole LMDB database ({error})") from error
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # damage may crash the process
        try:
            names = pool.submit(_keys, path).result()
        except (futures.process.BrokenProcessPool, _errors()) as error:
            raise UserError(f"{path}: not a whole LMDB database (its pages are damaged)") from error
    if len(set(names)) < len(names):
        raise UserError(f"{path}: not a whole LMDB database (a key is there twice)")
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ("data.mdb", "lock.mdb"))
    return Lmdb(path, names, digest([*names, str(size)]), [(name, "no part of the database") for name in others])


def _keys(path: pathlib.Path) -> list[str]:
    with _environment(path).begin() as transaction:
        return [key.decode("latin-1") for key in transaction.cursor().iternext(values=False)]


def _errors() -> Any:
    import lmdb

    return lmdb.Error


@functools.cache
def _environment(path: pathlib.Path) -> Any:
    """The open database, one for each process."""
    try:
        import lmdb
    except ImportError as error:
        raise UserError(f"{path}: reading LMDB needs lmdb: {install('prepare')}") from error
    return lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1024)
