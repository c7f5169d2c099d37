"""The interface of metrics. A metric declares all its properties, so that adding one takes a file and a registry entry.

Arrays are NHWC. Metrics of image sets take uint8 images, metrics of the encoder take float32 images in [0, 1].
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
    """Accumulates the statistics that a metric needs, batch by batch and in order. `value` is called at the end."""

    def add(self, rows: np.ndarray) -> None: ...

    @property
    def value(self) -> T_co: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric in the registry.

    name: as in metric specs ("fid" in "fid50k").
    definition: its settings, for tables and records; may contain {z_dim} and {beta} of the model.
    images: the sets of images that it uses, among "real", "generated", "held_out" and "outside" (--ood=DIR).
    lower_is_better: for all its values, or by value; None where neither is better.
    least: the fewest images that the definition allows.
    details: patterns of values that logs and curves omit, such as standard deviations.
    parts: names of single values that users may mistake for metrics; an error message suggests this metric.
    ranks: True if it can rank checkpoints.
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
        """True if a lower `value` is better, False if a higher one is, None if neither is."""
        every = self.lower_is_better
        return every[value] if isinstance(every, Mapping) else every

    def is_detail(self, value: str) -> bool:
        """True for the name of a value that logs and curves omit."""
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in self.details)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetMetric(Metric, Generic[T]):
    """A metric that compares generated with real images.

    default_count: the number of images of the published protocol, the maximum for a spec without a number.
    features: its input: the features [D] of a network ("inception", "alexnet"), or "pixels", uint8 [H, W, C].
    accumulator: creates an empty accumulator, for either set.
    compute: (accumulated value of the real images, of the generated images) -> values by name; "{}" in a name stands
    for the number of images. The first argument is None if `images` does not include "real".
    images_per_count: number of images per unit of the count. equal: True if both sets must have the same size.
    check_shape: raises ValueError for an unsupported (height, width, channels).
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
    """A batch of images with its encoding by a model.

    x: images, float32 [B, H, W, C] in [0, 1]. mu, logvar: of their posteriors, float32 [B, Z].
    decode: latents of images [B, Z] -> images [B, H, W, C], not clipped.
    beta: one over the noise variance per pixel of the likelihood that the model was trained with.
    seed, first: the noise of image i of the batch is drawn with (seed, first + i), for any batch size.
    lpips: perceptual distance of two batches of images, [B]; None if it is not available.
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

    default_count: the maximum number of held-out images for a spec without a number; None for all.
    per_image: the rows that it keeps of a batch, [B, ...] by name.
    reduce: (rows of held-out images, rows of outside images, empty unless in `images`) -> values by name.
    normal_prior: True if the model's prior must be N(0, I).
    uses_lpips: True if it uses `Encoded.lpips` when available. seeded: True if it draws noise.
    """

    images: tuple[str, ...] = ("held_out",)
    default_count: int | None = None
    per_image: Callable[[Encoded], dict[str, np.ndarray]]
    reduce: Callable[[Rows, Rows], dict[str, float]] = means
    normal_prior: bool = False
    uses_lpips: bool = False
    seeded: bool = False
