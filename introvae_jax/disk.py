"""Writing without losing anything: whole files or none, and no start without room to finish."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import socket
import tempfile
import time

from etils import epath

from introvae_jax import bucket
from introvae_jax.errors import UserError, warn

UNLOCKING = 2.0  # seconds to wait for the lock of a process that was just killed and still frees its memory
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
    """Holds a lock on the file `path`, on this machine or a network disk; it ends with the process, however that ends.

    Warns and goes on where the file system has no locks. Raises UserError, which names the owner, if another process
    holds it.
    """
    path = pathlib.Path(path)
    descriptor = _lock(path, purpose)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: pathlib.Path, purpose: str) -> int:
    """The descriptor that holds the lock. The file says who holds it."""
    deadline = time.monotonic() + UNLOCKING
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):  # or else its last owner has just removed it
                break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                owner = os.pread(descriptor, 1000, 0).decode(errors="replace") or f"{purpose} there now"
                raise UserError(f"{path.parent}: another process is {owner}; wait until it ends, or stop it") from error
            time.sleep(0.1)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            warn(f"{path.parent}: no file locks there ({error.strerror}); only one process at a time may use it")
            return descriptor
        os.close(descriptor)
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    with contextlib.suppress(OSError):  # on a full disk the lock holds without it
        os.ftruncate(descriptor, 0)
        who = f"{purpose} there now (process {os.getpid()} on {socket.gethostname()} since {since})"
        os.pwrite(descriptor, who.encode(), 0)
    return descriptor


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


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
