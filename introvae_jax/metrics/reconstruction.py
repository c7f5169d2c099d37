"""Pixel errors of reconstructions."""

import jax
import numpy as np

from introvae_jax.metrics import ssim
from introvae_jax.metrics.base import Encoded, EncoderMetric

# The error of rounding to 8 bits, uniform over a level. Smaller errors would not change an image file.
ROUNDING = 1 / (12 * 255**2)


def errors(images: np.ndarray, copies: np.ndarray) -> dict[str, np.ndarray]:
    """Mean squared error "mse" and peak signal-to-noise ratio "psnr" in dB, one of each per image, [B] float64.

    images, copies: float [B, ...], black is 0 and white is 1. Values are not clipped; clip them first to compare
    pictures. psnr is -10 log10(mse), limited to 58.9 dB, the error of rounding to 8 bits: equal images would otherwise
    make the mean infinite. mse is not limited.
    Raises ValueError for arrays of different shapes.
    """
    if images.shape != copies.shape or images.ndim < 2:
        raise ValueError(f"images {images.shape}, copies {copies.shape}: must have one shape, [B, ...]")
    difference = np.asarray(copies, np.float64) - np.asarray(images, np.float64)
    mse = np.mean(np.square(difference), axis=tuple(range(1, difference.ndim)))
    return {"mse": mse, "psnr": -10 * np.log10(np.maximum(mse, ROUNDING))}


_ssim = jax.jit(ssim.ssim)


def _per_image(batch: Encoded) -> dict[str, np.ndarray]:
    copies = batch.reconstructions
    values = {**errors(batch.x, copies), "ssim": np.asarray(_ssim(batch.x, copies))}
    return values if batch.lpips is None else {**values, "lpips": batch.lpips(batch.x, copies)}


RECONSTRUCTION = EncoderMetric(
    name="reconstruction", definition="mean over images, at z = mu, clipped to [0, 1]", per_image=_per_image,
    lower_is_better={"mse": True, "psnr": False, "ssim": False, "lpips": True},
    parts=("mse", "psnr", "ssim", "lpips"), uses_lpips=True,
)  # fmt: skip
