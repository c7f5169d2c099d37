"""Writing without losing anything: whole files or none, and no start without room to finish."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from introvae_jax.errors import UserError

RESERVE = 2**20  # bytes to leave free, for the lines and pictures between two checks


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path to write to, which becomes `path` at the end, so that no half-written file is seen."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_space(directory: str | os.PathLike, needed: int, purpose: str) -> None:
    """Raises UserError unless `needed` bytes and a reserve are free where `directory` is."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return  # a bucket, which has no such limit
    if free < needed + RESERVE:
        raise UserError(
            f"{directory}: no space left for {purpose} ({(needed + RESERVE) / 2**20:.1f} MiB needed, "
            f"{free / 2**20:.1f} MiB free); make room and rerun the same command, it goes on from the last checkpoint"
        )
