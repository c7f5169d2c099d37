"""Structural similarity of two images, at one scale and at several. Images are float [B, H, W, C] in [0, 1].

`metrics.msssim` uses `ms_ssim` of pairs of samples as a measure of diversity.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

WINDOW, SIGMA = 11, 1.5  # side and standard deviation of the Gaussian, in pixels
C1, C2 = 0.01**2, 0.03**2
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from full resolution down
SHRINK = 2 ** (len(WEIGHTS) - 1)  # from the first scale to the last


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity, [B], from -1 to 1 (equal images): the mean over positions and channels.

    Only windows inside the image count. Raises ValueError for shapes that differ or sides below 11.
    Source: Wang et al. 2004, eq. 13.
    """
    _check(a, b)
    if min(a.shape[1:3]) < WINDOW:
        raise ValueError(f"images {a.shape[1]}x{a.shape[2]}: a window of {WINDOW}x{WINDOW} does not fit")
    return _means(a, b)[0]


def ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multi-scale structural similarity over five scales, each half the size of the previous one, [B], from 0 to 1.

    Contrast and structure count at every scale, luminance at the last one only. A negative mean (images that are each
    other's negative) counts as 0, and so does the product.
    At scales smaller than 11 pixels the window covers the image, with sigma in proportion, as in ProGAN. At 1 pixel,
    the last scale of 16x16 images, there is no contrast and only luminance counts; such values are not comparable with
    those of larger images.
    Raises ValueError for shapes that differ or sides that are no multiples of 16.
    Source: Wang et al. 2003, eq. 7, its weights; means over channels before the product, as ProGAN's code.
    """
    _check(a, b)
    if a.shape[1] % SHRINK or a.shape[2] % SHRINK:
        raise ValueError(f"images {a.shape[1]}x{a.shape[2]}: sides must be multiples of {SHRINK}")
    product = jnp.ones(len(a))
    for scale, weight in enumerate(WEIGHTS):
        whole, contrast = _means(a, b)
        last = scale == len(WEIGHTS) - 1
        product *= jnp.maximum(whole if last else contrast, 0.0) ** weight
        a, b = _halved(a), _halved(b)
    return product


def _check(a: jax.Array, b: jax.Array) -> None:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images {a.shape} and {b.shape}: must both be the same [B, H, W, C]")


def _means(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean over positions and channels of the similarity and of its contrast-structure factor; [B] each."""
    a, b = a.astype(jnp.float32) - 0.5, b.astype(jnp.float32) - 0.5  # smaller squares give more accurate variances
    mean_a, mean_b = _smooth(a), _smooth(b)
    spread = _smooth(a * a + b * b) - mean_a * mean_a - mean_b * mean_b
    shared = _smooth(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    contrast = (2 * shared + C2) / (spread + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    return jnp.mean(luminance * contrast, axis=(1, 2, 3)), jnp.mean(contrast, axis=(1, 2, 3))


def _smooth(x: jax.Array) -> jax.Array:
    """Weighted means over the window, at the positions where it fits.

    The window is separable, and each 1-D convolution is a product with a band matrix. On a CPU this is faster than sums
    of shifted images, 7 times at 64 pixels and 4 times at 256; on accelerators matrix products are fast too.
    """
    size = min(WINDOW, *x.shape[1:3])
    rows, columns = _band(x.shape[1], size), _band(x.shape[2], size)
    exact = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)  # variances are small differences
    return exact("ih,bhjc->bijc", rows, exact("jw,bhwc->bhjc", columns, x))


def _band(length: int, size: int) -> np.ndarray:
    """Band matrix [length - size + 1, length]: each row has the Gaussian of `size` numbers, shifted by one."""
    offsets = np.arange(size) - (size - 1) / 2
    line = np.exp(-0.5 * np.square(offsets / (SIGMA * size / WINDOW)))
    band = np.zeros((length - size + 1, length), np.float32)
    for k, weight in enumerate(line / line.sum()):
        np.fill_diagonal(band[:, k:], weight)
    return band


def _halved(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; the last row or column of an odd side is dropped."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
