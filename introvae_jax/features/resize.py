"""Bilinear resizing to a square, with the weights that PyTorch and TensorFlow 1 compute."""

import jax
import jax.numpy as jnp
import numpy as np


def bilinear(images: jax.Array, size: int, align: str) -> jax.Array:
    """float32 [B, H, W, C] -> [B, size, size, C] without smoothing. align: as in `weights`."""
    rows, columns = (jnp.asarray(weights(n, size, align)) for n in images.shape[1:3])
    wide = jnp.einsum("pw,bhwc->bhpc", columns, images, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("ph,bhwc->bpwc", rows, wide, precision=jax.lax.Precision.HIGHEST)


def weights(before: int, after: int, align: str) -> np.ndarray:
    """The matrix [after, before] that interpolates linearly along one axis; each row sums to 1.

    align: "centres" maps the centres of pixels onto each other (`interpolate` of PyTorch, align_corners=False),
    "corners" their left edges (`resize_bilinear` of TensorFlow 1, half_pixel_centers=False). Positions are float32,
    as there. Raises ValueError for another one.
    """
    if align not in ("centres", "corners"):
        raise ValueError(f"align={align!r}: must be centres or corners")
    scale, target = np.float32(before / after), np.arange(after, dtype=np.float32)
    if align == "centres":
        position = np.maximum(scale * (target + np.float32(0.5)) - np.float32(0.5), 0)
    else:
        position = scale * target
    left = position.astype(np.int64)
    right = np.minimum(left + 1, before - 1)
    share = position - left.astype(np.float32)
    matrix = np.zeros((after, before), np.float32)
    rows = np.arange(after)
    np.add.at(matrix, (rows, left), 1 - share)
    np.add.at(matrix, (rows, right), share)
    return matrix
