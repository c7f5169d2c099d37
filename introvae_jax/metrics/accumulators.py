"""An accumulator for several metrics: it keeps all rows of a set in a temporary file, with constant memory."""

from collections.abc import Iterator
import contextlib
import io
import os
import tempfile

import numpy as np


class StoredRows:
    """float32 [N, D] in a file. Unlike in a memory map, rows that were read do not stay in memory.

    Indexing with a slice or an array of row numbers returns these rows as an array. Reads move the position in the
    file: use it in one thread at a time.
    """

    ndim = 2

    def __init__(self, file: io.BufferedRandom, shape: tuple[int, int]):
        self.shape, self._file = shape, file

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if not isinstance(rows, slice):
            return np.concatenate([self._read(row, row + 1) for row in map(int, rows)])
        start, stop, step = rows.indices(len(self))
        return self._read(start, max(start, stop))[::step]

    def _read(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, self.shape[1]), np.float32)
        self._file.seek(start * out.itemsize * self.shape[1])
        count = self._file.readinto(out.reshape(-1).view(np.uint8).data)
        self._file.seek(0, os.SEEK_END)  # rows may be added later
        if count < out.nbytes:
            raise IndexError(f"rows {start} to {stop} of {len(self)}")
        return out


RowMatrix = np.ndarray | StoredRows  # features [N, D], in memory or in a file


class Rows:
    """Keeps all rows [B, D] as float32 in a temporary file, which is deleted with the accumulator.

    Raises OSError, naming the folder of temporary files, when the disk is full.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="introvae_jax_")  # noqa: SIM115 - it closes with this object
        self._shape = (0, 0)

    def add(self, rows: np.ndarray) -> None:
        with _named():
            self._file.write(np.ascontiguousarray(rows, np.float32).data)
        self._shape = (self._shape[0] + len(rows), rows.shape[1])

    @property
    def value(self) -> StoredRows:
        with _named():
            self._file.flush()
        return StoredRows(self._file, self._shape)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Adds the folder to errors of a temporary file, which have no file name."""
    try:
        yield
    except OSError as error:
        place = f"temporary files in {tempfile.gettempdir()} (set the environment variable TMPDIR to change it)"
        raise OSError(error.errno, error.strerror, place) from error
