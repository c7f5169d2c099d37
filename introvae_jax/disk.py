"""Safe writing: atomic writes, file locks, and a check of the free space before a long write."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import shutil
import socket
import tempfile
import time

from etils import epath
import filelock

from introvae_jax import bucket
from introvae_jax.errors import UserError, warn

UNLOCKING = 2.0  # seconds to wait for a lock: a process that was just killed holds it until its memory is freed
RESERVE = 2**20  # bytes to leave free, for log files that grow between two checks


def expand(path: str | os.PathLike[str]) -> pathlib.Path:
    """A local path with ~ expanded. Raises UserError for the home of an unknown user and for a bucket."""
    if "://" in os.fspath(path):
        raise UserError(f"{path}: only --workdir and --out can be in a bucket; copy it to a disk first")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from error


def resolve(path: str | os.PathLike[str]) -> pathlib.Path | epath.Path:
    """As `expand`, or, for gs://BUCKET/..., the path in a bucket. Raises UserError for any other URL."""
    return bucket.at(path) if "://" in os.fspath(path) else expand(path)


def cache_dir() -> pathlib.Path:
    """The folder for files that can be downloaded or computed again: $INTROVAE_JAX_CACHE, or ~/.cache/introvae_jax."""
    return expand(os.environ.get("INTROVAE_JAX_CACHE") or "~/.cache/introvae_jax")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Atomic write: yields a temporary path to write to, which is renamed to `path` at the end.

    path: local or in a bucket. Raises OSError if it cannot be written.
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


def require_files(directory: str | os.PathLike[str]) -> None:
    """Raises UserError if there is a FIFO or a device below `directory`: reading one may block for ever."""
    if bucket.is_bucket(directory):
        return
    for path in pathlib.Path(directory).rglob("*"):
        if path.is_fifo() or path.is_socket() or path.is_char_device() or path.is_block_device():
            raise UserError(f"{path}: neither a file nor a folder; remove it")


@contextlib.contextmanager
def file_lock(path: str | os.PathLike[str], purpose: str) -> Iterator[None]:
    """Holds a lock on the file `path`, on a local or network disk. The lock is released when the process ends.

    purpose: for the error messages of other processes, for instance "training". The file PATH.owner beside `path`
    names the owner of the lock. Warns and continues if the file system has no locks. Raises UserError, which names the
    owner, if another process holds the lock, and OSError if the file cannot be written.
    """
    path = pathlib.Path(path)
    owner = path.with_name(f"{path.name}.owner")
    # filelock's fallback, a soft lock, would remain after its owner is killed.
    lock = filelock.FileLock(path, timeout=UNLOCKING, poll_interval=0.1, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        doing = _read(owner) or f"{purpose} there now"
        raise UserError(f"{path.parent}: another process is {doing}; wait until it ends, or stop it") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        warn(f"{path.parent}: no file locks there ({error.strerror}); only one process at a time may use it")
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        with contextlib.suppress(OSError):  # on a full disk the lock works without this file
            owner.write_text(f"{purpose} there now (process {os.getpid()} on {socket.gethostname()} since {since})")
    try:
        yield
    finally:
        for file in (owner, path):
            with contextlib.suppress(OSError):  # Windows cannot remove an open file
                file.unlink(missing_ok=True)
        lock.release()


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(errors="replace")[:1000]
    except OSError:
        return ""


def require_space(
    directory: str | os.PathLike[str], needed: int, purpose: str, resume: str = "to resume from the last checkpoint"
) -> None:
    """Raises UserError unless `needed` bytes and a reserve are free on the disk of `directory`.

    purpose, resume: for the error message: what is written, and what a rerun does.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return  # a bucket has no such limit
    if free < needed + RESERVE:
        raise UserError(
            f"{directory}: no space left for {purpose} ({(needed + RESERVE) / 2**20:.1f} MiB needed, "
            f"{free / 2**20:.1f} MiB free); make room and rerun the same command {resume}"
        )
