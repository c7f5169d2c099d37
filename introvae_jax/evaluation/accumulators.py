"""What a figure keeps of a set of images while they stream by. Memory does not grow with their number."""

from collections.abc import Iterator
import contextlib
import os
import tempfile
from typing import Any, BinaryIO, Protocol

import jax
import numpy as np

from introvae_jax.metrics import frechet, ssim, swd

BUFFER = 1024  # rows that are taken in at a time: an update of a covariance costs the same for few and for many


class Collection(Protocol):
    """Takes in what a view shows of the images, batch by batch and in order; `value` is asked for at the end."""

    def add(self, rows: np.ndarray) -> None: ...

    @property
    def value(self) -> Any: ...


class Moments:
    """Mean and covariance of features [B, D], as `frechet.Moments`."""

    def __init__(self):
        self._moments, self._waiting = frechet.Moments(), []

    def add(self, rows: np.ndarray) -> None:
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= BUFFER:
            self._flush()

    @property
    def value(self) -> frechet.Moments:
        self._flush()
        return self._moments

    def _flush(self) -> None:
        if self._waiting:
            self._moments.add(np.concatenate(self._waiting))
            self._waiting = []


class Rows:
    """All rows [B, D], as float32 in a file that ends with the process; `value` reads them where they are indexed."""

    def __init__(self):
        self._file = tempfile.TemporaryFile(prefix="introvae_jax_")  # noqa: SIM115 - it closes with this object
        self._shape = (0, 0)

    def add(self, rows: np.ndarray) -> None:
        with _named():
            self._file.write(np.ascontiguousarray(rows, np.float32))
        self._shape = (self._shape[0] + len(rows), rows.shape[1])

    @property
    def value(self) -> "Stored":
        with _named():
            self._file.flush()
        return Stored(self._file, self._shape)


class Stored:
    """float32 [N, D] in a file. Unlike a memory map it leaves nothing behind in memory that was read and is done with.

    A slice or an array of row numbers as index gives these rows as an array.
    """

    ndim = 2

    def __init__(self, file: BinaryIO, shape: tuple[int, int]):
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
        view, place = memoryview(out.reshape(-1).view(np.uint8)), start * out.itemsize * self.shape[1]
        while view:
            count = os.preadv(self._file.fileno(), [view], place)
            if not count:
                raise IndexError(f"rows {start} to {stop} of {len(self)}")
            view, place = view[count:], place + count
        return out


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """An error of a temporary file, which has no name, says where it would have been."""
    try:
        yield
    except OSError as error:
        place = f"temporary files in {tempfile.gettempdir()} (the environment's TMPDIR names another place)"
        raise OSError(error.errno, error.strerror, place) from error


class Descriptors:
    """Patches of images uint8 [B, S, S, C] for the sliced Wasserstein distance: `value` has a `Rows` for each level."""

    def __init__(self):
        self._levels: list[Rows] = []
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        found = swd.descriptors(rows, 0, first=self._count)
        self._count += len(rows)
        self._levels = self._levels or [Rows() for _ in found]
        for level, patches in zip(self._levels, found, strict=True):
            level.add(patches)

    @property
    def value(self) -> list[Stored]:
        return [level.value for level in self._levels]


class Pairs:
    """Mean MS-SSIM between each image of uint8 [B, H, W, C] and the next, first with second, third with fourth."""

    def __init__(self):
        self._odd: np.ndarray | None = None
        self._total, self._count = 0.0, 0

    def add(self, rows: np.ndarray) -> None:
        if self._odd is not None:
            rows = np.concatenate([self._odd, rows])
        even = len(rows) // 2 * 2
        self._odd = rows[even:] if even < len(rows) else None
        if even:
            left, right = (np.float32(rows[start:even:2]) / 255 for start in (0, 1))
            self._total += float(np.sum(np.asarray(_ms_ssim(left, right), np.float64)))
            self._count += even // 2

    @property
    def value(self) -> float:
        return self._total / self._count


_ms_ssim = jax.jit(ssim.ms_ssim)
