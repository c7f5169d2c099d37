"""Writing without losing anything: whole files or none, and no start without room to finish."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile

from etils import epath

from introvae_jax import bucket
from introvae_jax.errors import UserError

RESERVE = 2**20  # bytes to leave free, for the lines and pictures between two checks


def expand(path: str | os.PathLike) -> pathlib.Path:
    """The path on this machine, its ~ resolved. Raises UserError if that is nobody's home, or for a bucket."""
    if "://" in os.fspath(path):
        raise UserError(f"{path}: only --workdir and --out can be in a bucket; copy it to a disk first")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from error


def place(path: str | os.PathLike) -> pathlib.Path | epath.Path:
    """As `expand`, or the path gs://BUCKET/... in a bucket. Raises UserError if it is neither."""
    return bucket.at(path) if "://" in os.fspath(path) else expand(path)


def cache_dir() -> pathlib.Path:
    """Where what can be had again stays: $INTROVAE_JAX_CACHE, or ~/.cache/introvae_jax."""
    return expand(os.environ.get("INTROVAE_JAX_CACHE") or "~/.cache/introvae_jax")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path to write to, which becomes `path` at the end, so that no half-written file is seen.

    path: on this machine or in a bucket. Raises OSError if it cannot be written.
    """
    if bucket.is_bucket(path):
        with tempfile.TemporaryDirectory(prefix="introvae_jax_") as folder:
            temporary = pathlib.Path(folder, "file")
            yield temporary
            bucket.upload(bucket.at(path), temporary.read_bytes())
        return
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_files(directory: str | os.PathLike) -> None:
    """Raises UserError if there is a FIFO or a device below `directory`: reading one may never end."""
    if bucket.is_bucket(directory):
        return
    for path in pathlib.Path(directory).rglob("*"):
        if path.is_fifo() or path.is_socket() or path.is_char_device() or path.is_block_device():
            raise UserError(f"{path}: neither a file nor a folder; remove it")


@contextlib.contextmanager
def only_one(path: str | os.PathLike, purpose: str) -> Iterator[None]:
    """Holds a lock on the file `path`, which ends with the process. Raises UserError if another one holds it."""
    with pathlib.Path(path).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is {purpose} there now ({path} is locked)") from error
        yield


def require_space(
    directory: str | os.PathLike, needed: int, purpose: str, resume: str = "it goes on from the last checkpoint"
) -> None:
    """Raises UserError unless `needed` bytes and a reserve are free where `directory` is."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return  # a bucket, which has no such limit
    if free < needed + RESERVE:
        raise UserError(
            f"{directory}: no space left for {purpose} ({(needed + RESERVE) / 2**20:.1f} MiB needed, "
            f"{free / 2**20:.1f} MiB free); make room and rerun the same command, {resume}"
        )
