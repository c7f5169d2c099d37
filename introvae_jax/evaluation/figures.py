"""The figures that compare two sets of images: what each looks at, keeps of a set, and makes of two."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np

from introvae_jax.evaluation import accumulators
from introvae_jax.metrics import frechet, kernel, precision_recall, ssim, swd


@dataclasses.dataclass(frozen=True)
class Figure:
    """A metric of two sets of images.

    view: what it sees of an image: the features of a network ("inception", "alexnet") or "pixels". count: images of
    each set in the published protocol. collect: makes an empty `Collection`. compare: the values of two collections,
    real and generated -> figures; "{}" in a name is where the number of images goes. lower: whether lower is better.
    says: its own settings. least: images that the definition needs.
    per_count: images for each of the count. equal: whether both sets must have as many images. alone: whether
    real images play no part but in the floor. check: raises ValueError for (height, width, channels) it cannot take.
    """

    view: str
    count: int
    collect: Callable[[], accumulators.Collection]
    compare: Callable[[Any, Any], dict[str, float]]
    lower: bool
    says: str
    least: int = 2
    per_count: int = 1
    equal: bool = False
    alone: bool = False
    check: Callable[[tuple[int, ...]], None] = lambda shape: None


def _frechet(name: str) -> Callable[[Any, Any], dict[str, float]]:
    return lambda real, fake: {f"{name}{{}}": frechet.distance(real, fake)}


def _kernel(name: str) -> Callable[[Any, Any], dict[str, float]]:
    def compare(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
        found = kernel.kernel_distance(real, fake)
        return {f"{name}{{}}": found["mean"], f"{name}{{}}_std": found["std"]}

    return compare


def _precision_recall(prefix: str) -> Callable[[Any, Any], dict[str, float]]:
    def compare(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
        return {f"{prefix}{name}{{}}": v for name, v in precision_recall.precision_recall(real, fake).items()}

    return compare


def _swd(real: Sequence[np.ndarray], fake: Sequence[np.ndarray]) -> dict[str, float]:
    levels = {
        f"swd{{}}_{swd.COARSEST << (len(real) - 1 - i)}": 1e3 * swd.distance(a, b)
        for i, (a, b) in enumerate(zip(real, fake, strict=True))
    }
    return {"swd{}": float(np.mean(list(levels.values()))), **levels}


def _check_swd(shape: tuple[int, ...]) -> None:
    if shape[0] != shape[1]:
        raise ValueError(f"images {shape[1]}x{shape[0]}: must be square")
    swd.sizes(shape[0])


def _check_ms_ssim(shape: tuple[int, ...]) -> None:
    if shape[0] % ssim.SHRINK or shape[1] % ssim.SHRINK:
        raise ValueError(f"images {shape[1]}x{shape[0]}: sides must be multiples of {ssim.SHRINK}")


_SUBSETS = "100 subsets of 1,000, cubic kernel, seed 2020"
_NEIGHBOURS = "3 nearest neighbours"
FIGURES = {
    "fid": Figure("inception", 50_000, accumulators.Moments, _frechet("fid"), True, "Gaussians of pool features"),
    "kid": Figure("inception", 50_000, accumulators.Rows, _kernel("kid"), True, _SUBSETS, least=1000),
    "precision_recall": Figure(
        "inception", 50_000, accumulators.Rows, _precision_recall(""), False, _NEIGHBOURS, least=4
    ),
    "alexnet_frechet": Figure(
        "alexnet", 50_000, accumulators.Moments, _frechet("alexnet_frechet"), True, "Gaussians of the last convolution"
    ),
    "alexnet_kernel": Figure(
        "alexnet", 50_000, accumulators.Rows, _kernel("alexnet_kernel"), True, _SUBSETS, least=1000
    ),
    "alexnet_precision_recall": Figure(
        "alexnet", 50_000, accumulators.Rows, _precision_recall("alexnet_"), False, _NEIGHBOURS, least=4
    ),
    "swd": Figure(
        "pixels", 16_384, accumulators.Descriptors, _swd, True, "128 patches of 7x7 an image and level, x 1000",
        equal=True, check=_check_swd,
    ),
    "msssim": Figure(
        "pixels", 10_000, accumulators.Pairs, lambda real, fake: {"msssim{}": fake}, True,
        "of pairs of generated images; its floor is that of pairs of real ones", per_count=2, alone=True,
        check=_check_ms_ssim,
    ),
}  # fmt: skip
