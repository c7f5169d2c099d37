"""What a metric declares about itself, so that its file and its line in the registry are all there is to write.

Arrays are NHWC. Metrics of image sets see uint8 images, metrics of the encoder see float32 images in [0, 1].
"""

from collections.abc import Callable, Mapping
import dataclasses
import fnmatch
import functools
from typing import Generic, Protocol, TypeVar

import numpy as np

Rows = Mapping[str, np.ndarray]  # values by name, [N, ...]: one row for each image
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Accumulator(Protocol[T_co]):
    """Keeps what a metric needs of a set of images, batch by batch and in order. `value` is read at the end."""

    def add(self, rows: np.ndarray) -> None: ...

    @property
    def value(self) -> T_co: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric, as the registry holds it.

    name: as in metric specs ("fid" in "fid50k").
    definition: its settings, for tables and records; may hold {z_dim} and {beta} of the model.
    images: the sets of images that it looks at, of "real", "generated", "held_out" and "outside" (--ood=DIR).
    lower_is_better: for all its values, or by value; None where neither is better.
    least: images that the definition needs.
    details: patterns of its values that logs and curves leave out, such as standard deviations.
    parts: other names by which users ask for one of its values.
    ranks: whether it can rank checkpoints.
    """

    name: str
    definition: str
    images: tuple[str, ...]
    lower_is_better: bool | Mapping[str, bool | None] | None
    least: int = 1
    details: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    ranks: bool = True

    def direction(self, value: str) -> bool | None:
        """True where a lower `value` is better, False where a higher one is, None where neither is."""
        every = self.lower_is_better
        return every[value] if isinstance(every, Mapping) else every

    def is_detail(self, value: str) -> bool:
        """True for the name of a value that logs and curves leave out."""
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in self.details)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetMetric(Metric, Generic[T]):
    """A metric that compares generated with real images.

    default_count: the number of the published protocol, taken at most by a spec without one.
    features: what it sees of an image: the features [D] of a network ("inception", "alexnet"), or "pixels",
    uint8 [H, W, C].
    accumulator: makes an empty one, for either set.
    compute: what was kept of the real and of the generated images -> values by name; "{}" in a name is where the number
    of images goes. It gets None for real images that are not among `images`.
    images_per_count: images for each of the count. equal: both sets must have as many images.
    check_shape: raises ValueError for (height, width, channels) that it cannot take.
    """

    images: tuple[str, ...] = ("real", "generated")
    least: int = 2
    default_count: int
    features: str
    accumulator: Callable[[], Accumulator[T]]
    compute: Callable[[T, T], dict[str, float]]
    images_per_count: int = 1
    equal: bool = False
    check_shape: Callable[[tuple[int, ...]], object] = lambda shape: None


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A batch of images and what a model makes of it.

    x: images, float32 [B, H, W, C] in [0, 1]. mu, logvar: of their posteriors, float32 [B, Z].
    decode: latents of images [B, Z] -> images [B, H, W, C], not clipped.
    beta: one over the variance of a pixel's noise that the model was trained with.
    seed, first: noise of image i of the batch is drawn with (seed, first + i), whatever the batch size.
    lpips: perceptual distance of two batches of images, [B]; None where it is not available.
    """

    x: np.ndarray
    mu: np.ndarray
    logvar: np.ndarray
    decode: Callable[[np.ndarray], np.ndarray]
    beta: float
    seed: int = 0
    first: int = 0
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @functools.cached_property
    def reconstructions(self) -> np.ndarray:
        """D(mu), clipped to [0, 1]."""
        return np.clip(self.decode(self.mu), 0.0, 1.0)


def means(rows: Rows, outside: Rows) -> dict[str, float]:
    """The mean over held-out images of each value."""
    return {name: float(values.mean()) for name, values in rows.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderMetric(Metric):
    """A metric of the encoder on held-out images.

    default_count: held-out images that a spec without a number takes at most; None for all.
    per_image: what it keeps of a batch, [B, ...] by name.
    reduce: the rows of held-out images and of images from outside (none unless among `images`) -> values by name.
    normal_prior: whether the model's prior must be N(0, I).
    uses_lpips: whether it takes `Encoded.lpips` where that is available. seeded: whether it draws noise.
    """

    images: tuple[str, ...] = ("held_out",)
    default_count: int | None = None
    per_image: Callable[[Encoded], dict[str, np.ndarray]]
    reduce: Callable[[Rows, Rows], dict[str, float]] = means
    normal_prior: bool = False
    uses_lpips: bool = False
    seeded: bool = False
