"""Sliced Wasserstein distance between patches of real and generated images (Karras et al. 2018, arXiv 1710.10196).

Each level of a Laplacian pyramid, from full resolution down to 16, has its own distance: coarse levels measure large
structures, fine levels measure texture. The published protocol uses 16,384 images and 2.1 million patches.
"""

from collections.abc import Sequence
from concurrent import futures

import numpy as np

from introvae_jax.metrics.accumulators import RowMatrix, Rows, StoredRows
from introvae_jax.metrics.base import SetMetric

COARSEST = 16
PATCH, PATCHES = 7, 128  # side in pixels, number per image
DIRECTIONS = 512  # published as 4 x 128, which has the same mean
BATCH, ROWS = 64, 16384  # images and descriptors handled at a time
FLOATS = 2**28  # projections held at a time, of both sets: 1 GiB
_POSITIONS, _DIRECTIONS = 1, 2  # random streams


def swd(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Distance at each resolution ("64", "32", "16") and their "mean", in thousandths as published.

    real, fake: uint8 [N, S, S, C] of the same N. All descriptors are kept in memory: 25 kB * C per image and level.
    seed: of patches and directions.
    Raises ValueError for sets of different shapes and images that `descriptors` refuses.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real images {real.shape}, generated ones {fake.shape}: must have one shape")
    described = []
    for images in (real, fake):
        batches = [descriptors(images[i : i + BATCH], seed, first=i) for i in range(0, len(images), BATCH)]
        described.append([np.concatenate(level) for level in zip(*batches, strict=True)])
    pairs = zip(sizes(real.shape[1]), *described, strict=True)
    distances = {str(size): 1e3 * distance(a, b, seed) for size, a, b in pairs}
    return distances | {"mean": float(np.mean(list(distances.values())))}


def sizes(side: int) -> list[int]:
    """Sides of the pyramid's levels, from the image's own to 16. Raises ValueError unless a power of two from 16 up."""
    if side < COARSEST or side & (side - 1):
        raise ValueError(f"images of side {side}: must be a power of two, {COARSEST} or more")
    return [side >> k for k in range((side // COARSEST).bit_length())]


def descriptors(images: np.ndarray, seed: int, first: int = 0) -> list[np.ndarray]:
    """Random patches of one batch at each level, float32 [B * 128, 49 * C] in units of grey levels, finest level first.

    images: uint8 [B, S, S, C]. first: index of the batch's first image within its set. The positions of patches depend
    only on seed, image index and level, so a set may be split into batches of any size.
    Raises ValueError for other shapes or types, and for sides that are not a power of two of at least 16.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
        raise ValueError(f"images {images.shape} {images.dtype}: must be uint8 [B, S, S, C]")
    sizes(images.shape[1])
    return [
        _patches(level, positions(seed, k, first, len(images), level.shape[1]))
        for k, level in enumerate(laplacian_pyramid(images))
    ]


def distance(real: RowMatrix, fake: RowMatrix, seed: int = 0) -> float:
    """Mean over random directions of the 1-D Wasserstein distance between two sets of descriptors of one level.

    real, fake: float32 [M, 49 * C], in memory or in a file, as `descriptors` returns them. Each channel is normalised
    to mean 0 and standard deviation 1 over its set. The result is not in thousandths. seed: of the directions.
    Raises ValueError for sets of different shapes.
    """
    if real.shape != fake.shape or real.ndim != 2 or real.shape[1] % PATCH**2 or not len(real):
        raise ValueError(f"descriptors {real.shape} and {fake.shape}: must have one shape, [M, {PATCH**2} * C]")
    along = directions(seed, real.shape[1])
    means_stds = [_channel_moments(x) for x in (real, fake)]
    step = max(1, min(DIRECTIONS, FLOATS // (2 * len(real))))
    total = 0.0
    with futures.ThreadPoolExecutor() as pool:
        for start in range(0, DIRECTIONS, step):
            projections = (
                _projected(x, *of, along[start : start + step]) for x, of in zip((real, fake), means_stds, strict=True)
            )
            total += sum(pool.map(_wasserstein, *projections))
    return total / DIRECTIONS


def directions(seed: int, dims: int) -> np.ndarray:
    """Unit vectors, uniform over the sphere, [512, D]; the same at every level."""
    normals = np.random.default_rng((seed, _DIRECTIONS)).standard_normal((DIRECTIONS, dims))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def positions(seed: int, level: int, first: int, num: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Top rows and left columns of the patches of images first ... first + num - 1, [num * 128] each.

    Each level has one stream of uniform numbers; each image uses the next 256 of them.
    """
    bits = np.random.PCG64((seed, _POSITIONS, level)).advance(first * 2 * PATCHES)
    uniform = np.random.Generator(bits).random((num, 2, PATCHES))
    top, left = (uniform * (side - PATCH + 1)).astype(np.int64).transpose(1, 0, 2).reshape(2, -1)
    return top, left


def laplacian_pyramid(images: np.ndarray) -> list[np.ndarray]:
    """uint8 [N, S, S, C] -> float32 levels [N, S / 2^k, S / 2^k, C], the last being the image at 16x16 itself.

    Source: Burt and Adelson 1983, with the binomial filter 1 4 6 4 1, mirrored at the edges.
    """
    current, levels = np.asarray(images, np.float32), list[np.ndarray]()
    while current.shape[1] > COARSEST:
        smaller = _halved(_halved(current, 1), 2)
        levels.append(current - _doubled(_doubled(smaller, 1), 2))
        current = smaller
    return [*levels, current]


def _halved(x: np.ndarray, axis: int) -> np.ndarray:
    """Blurs and keeps every second pixel."""
    x = np.swapaxes(x, 0, axis)
    x = np.concatenate([x[2:0:-1], x, x[-2:-3:-1]])
    ends, near, middle = x[:-4:2] + x[4::2], x[1:-3:2] + x[3:-1:2], x[2:-2:2]
    return np.swapaxes((ends + 4 * near + 6 * middle) / 16, 0, axis)


def _doubled(x: np.ndarray, axis: int) -> np.ndarray:
    """Inserts zeros, blurs and multiplies by 2. A zero mirrors to a zero: the edges are x[1] before and x[-1] after."""
    x = np.swapaxes(x, 0, axis)
    before, after = np.concatenate([x[1:2], x[:-1]]), np.concatenate([x[1:], x[-1:]])
    out = np.empty((2 * len(x), *x.shape[1:]), np.float32)
    out[::2], out[1::2] = (before + 6 * x + after) / 8, (x + after) / 2
    return np.swapaxes(out, 0, axis)


def _patches(images: np.ndarray, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The patches at these corners, PATCHES of each image, flattened to [N * PATCHES, D] with the channel last."""
    num, size, _, channels = images.shape
    # With rows of pixels flattened, a patch is PATCH contiguous runs, which copy much faster than single channels.
    windows = np.lib.stride_tricks.sliding_window_view(
        np.ascontiguousarray(images).reshape(num, size, size * channels), (PATCH, PATCH * channels), axis=(1, 2)
    )[:, :, ::channels]
    top, left = where
    return windows[np.repeat(np.arange(num), PATCHES), top, left].reshape(num * PATCHES, -1)


def _channel_moments(x: RowMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each entry's channel over the set x [M, D]; [D] each. Constant: deviation 1."""
    sums, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for start in range(0, len(x), ROWS):
        rows = np.asarray(x[start : start + ROWS], np.float64)
        sums += rows.sum(axis=0)
        squares += np.einsum("md,md->d", rows, rows)
    mean, square = (s.reshape(PATCH**2, -1).mean(axis=0) / len(x) for s in (sums, squares))
    variance = square - np.square(mean)
    constant = variance <= 1e-12 * square
    return np.tile(mean, PATCH**2), np.tile(np.where(constant, 1.0, variance**0.5), PATCH**2)


def _projected(x: RowMatrix, mean: np.ndarray, std: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Projects normalised x [M, D] on directions [K, D]: [K, M], with contiguous rows, which sort fastest."""
    scaled = np.float32(directions / std)
    out = np.empty((len(directions), len(x)), np.float32)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS] - np.float32(mean)
        np.matmul(scaled, rows.T, out=out[:, start : start + ROWS])
    return out


def _wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of a and b [M], both sorted in place. NumPy sorts without the GIL, so threads help.

    Sorting dominates the time. On AMD Zen 4, NumPy's sort for AVX-512 takes six times as long as its sort for AVX2,
    which NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL" in the environment selects (NumPy 2.4).
    """
    a.sort()
    b.sort()
    return float(np.mean(np.abs(a - b), dtype=np.float64))


class PatchesAccumulator:
    """Accumulates descriptors of images uint8 [B, S, S, C], with seed 0. `value` returns the rows of each level."""

    def __init__(self) -> None:
        self._levels: list[Rows] = []
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        found = descriptors(rows, 0, first=self._count)
        self._count += len(rows)
        self._levels = self._levels or [Rows() for _ in found]
        for level, patches in zip(self._levels, found, strict=True):
            level.add(patches)

    @property
    def value(self) -> list[StoredRows]:
        return [level.value for level in self._levels]


def _compute(real: Sequence[RowMatrix], generated: Sequence[RowMatrix]) -> dict[str, float]:
    levels = {
        f"swd{{}}_{COARSEST << (len(real) - 1 - i)}": 1e3 * distance(a, b)
        for i, (a, b) in enumerate(zip(real, generated, strict=True))
    }
    return {"swd{}": float(np.mean(list(levels.values()))), **levels}


def _check_shape(shape: tuple[int, ...]) -> None:
    if shape[0] != shape[1]:
        raise ValueError(f"images {shape[1]}x{shape[0]}: must be square")
    sizes(shape[0])


SWD = SetMetric(
    name="swd", features="pixels", definition="128 patches of 7x7 an image and level, x 1000", default_count=16_384,
    accumulator=PatchesAccumulator, compute=_compute, lower_is_better=True, details=("swd*_*",), equal=True,
    check_shape=_check_shape,
)  # fmt: skip
