"""Mean MS-SSIM of pairs of generated images, a measure of diversity: lower values mean more diverse images.

Source: Karras et al. 2018 (arXiv 1710.10196), section 5.
"""

import jax
import numpy as np

from introvae_jax.metrics import ssim
from introvae_jax.metrics.base import SetMetric


class PairsAccumulator:
    """Accumulates the mean MS-SSIM of consecutive pairs of images uint8 [B, H, W, C]: (0, 1), (2, 3), ..."""

    def __init__(self) -> None:
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


def _compute(real: float, generated: float) -> dict[str, float]:
    """Real images are not used, except for the noise floor, where they take the place of generated ones."""
    return {"msssim{}": generated}


def _check_shape(shape: tuple[int, ...]) -> None:
    if shape[0] % ssim.SHRINK or shape[1] % ssim.SHRINK:
        raise ValueError(f"images {shape[1]}x{shape[0]}: sides must be multiples of {ssim.SHRINK}")


MSSSIM = SetMetric(
    name="msssim", features="pixels", images=("generated",), default_count=10_000, images_per_count=2,
    definition="of pairs of generated images; its floor is that of pairs of real ones",
    accumulator=PairsAccumulator, compute=_compute, lower_is_better=True, check_shape=_check_shape,
)  # fmt: skip
