"""Sliced Wasserstein distance between patches of real and generated images (Karras et al. 2018, arXiv 1710.10196).

Each level of a Laplacian pyramid, from full resolution down to 16, is judged by itself: coarse levels tell
whether large structure is right, fine ones whether texture is.
"""

import numpy as np

COARSEST = 16
PATCH, PATCHES = 7, 128  # side in pixels, number drawn from each image
REPEATS, DIRECTIONS = 4, 128
KERNEL = np.float32([1, 4, 6, 4, 1]) / 16


def swd(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Distance at each resolution and their "mean", in thousandths as published.

    real, fake: uint8 [N, S, S, C], equally many. seed: of patches and directions.
    Raises ValueError for sets of different shapes.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real images {real.shape}, generated ones {fake.shape}: must have one shape")
    distances = {}
    for level, (one, other) in enumerate(zip(laplacian_pyramid(real), laplacian_pyramid(fake), strict=True)):
        rng = np.random.default_rng((seed, level))
        size = one.shape[1]
        patches = [_normalized(_patches(images, rng)) for images in (one, other)]
        distances[str(size)] = 1e3 * sliced_distance(*patches, rng)
    return distances | {"mean": float(np.mean(list(distances.values())))}


def laplacian_pyramid(images: np.ndarray) -> list[np.ndarray]:
    """uint8 [N, S, S, C] -> float32 levels [N, S / 2^k, S / 2^k, C], the last being the image at 16x16 itself."""
    current, levels = np.float32(images), []
    while current.shape[1] > COARSEST:
        smaller = _blur(current)[:, ::2, ::2]
        levels.append(current - _expand(smaller))
        current = smaller
    return [*levels, current]


def sliced_distance(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> float:
    """Mean over random directions of the 1-D Wasserstein distance between a and b, both [N, D]."""
    distances = []
    for _ in range(REPEATS):
        directions = rng.standard_normal((a.shape[1], DIRECTIONS), dtype=np.float32)
        directions /= np.linalg.norm(directions, axis=0)
        sorted_a, sorted_b = (np.sort(x @ directions, axis=0) for x in (a, b))
        distances.append(np.mean(np.abs(sorted_a - sorted_b)))
    return float(np.mean(distances))


def _patches(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random patches of each image, [N * PATCHES, PATCH, PATCH, C]."""
    num, size = images.shape[:2]
    top, left = (rng.integers(0, size - PATCH + 1, num * PATCHES) for _ in range(2))
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    found = windows[np.repeat(np.arange(num), PATCHES), top, left]
    return found.transpose(0, 2, 3, 1)


def _normalized(patches: np.ndarray) -> np.ndarray:
    """Each channel at mean 0 and standard deviation 1 over all patches; flattened to [M, D]."""
    mean, std = (f(patches, axis=(0, 1, 2), keepdims=True) for f in (np.mean, np.std))
    return ((patches - mean) / std).reshape(len(patches), -1)


def _blur(x: np.ndarray) -> np.ndarray:
    """The binomial 5x5 filter, mirrored at the edges."""
    for axis in (1, 2):
        padding = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        padded, size = np.pad(x, padding, mode="reflect"), x.shape[axis]
        x = sum(w * np.take(padded, np.arange(k, k + size), axis=axis) for k, w in enumerate(KERNEL))
    return x


def _expand(x: np.ndarray) -> np.ndarray:
    """Twice the size: pixels with zeros between them, blurred."""
    num, height, width, channels = x.shape
    wide = np.zeros((num, 2 * height, 2 * width, channels), np.float32)
    wide[:, ::2, ::2] = 4 * x
    return _blur(wide)
