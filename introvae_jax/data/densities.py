"""Two-dimensional densities, toy data on which failures of a model are visible.

Shapes and constants are those of Daniel and Tamar 2021 (arXiv 2012.13253), so that metrics can be compared.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

TRAIN_POINTS, TEST_POINTS = 2**18, 2**14


def _eight_gaussians(rng: np.random.Generator, num: int) -> np.ndarray:
    """Eight narrow Gaussians (standard deviation 0.014) on a circle of radius sqrt(2)."""
    angle = rng.integers(0, 8, num) * (np.pi / 4)
    centers = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centers + 0.02 * rng.standard_normal((num, 2))) / np.sqrt(2.0)


def _two_spirals(rng: np.random.Generator, num: int) -> np.ndarray:
    """Two arms that wind one and a half times, with noise of 0.1."""
    turn = 3 * np.pi * np.sqrt(rng.random(num))
    blur = rng.random((num, 2)) * 0.5
    arm = np.stack([-np.cos(turn), np.sin(turn)], axis=1) * turn[:, None] + blur
    side = rng.choice([-1.0, 1.0], (num, 1))
    return side * arm / 3 + 0.1 * rng.standard_normal((num, 2))


def _checkerboard(rng: np.random.Generator, num: int) -> np.ndarray:
    """Uniform on the eight squares of one colour of a 4 x 4 board of side 8."""
    x = rng.random(num) * 4 - 2
    y = rng.random(num) - 2 * rng.integers(0, 2, num) + np.floor(x) % 2
    return 2 * np.stack([x, y], axis=1)


def _rings(rng: np.random.Generator, num: int) -> np.ndarray:
    """Four concentric rings of radius 0.75, 1.5, 2.25 and 3, with equal weights and noise of 0.08."""
    angle, radius = 2 * np.pi * rng.random(num), 0.75 * rng.integers(1, 5, num)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    return points + 0.08 * rng.standard_normal((num, 2))


@dataclasses.dataclass(frozen=True)
class Density:
    """draw: (rng, num) -> points [num, 2]. reach: pictures and histograms cover the square from -reach to reach."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    reach: float

    def points(self, num: int, seed: int) -> np.ndarray:
        """`num` independent points, float32 [num, 2]."""
        return np.asarray(self.draw(np.random.default_rng(seed), num), np.float32)


DENSITIES = {
    "8gaussians": Density(_eight_gaussians, 2.0),
    "2spirals": Density(_two_spirals, 4.0),
    "checkerboard": Density(_checkerboard, 4.0),
    "rings": Density(_rings, 4.0),
}


def open_splits(name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Training points float32 [262144, 2], test points float32 [16384, 2], and their identity. Deterministic."""
    density = DENSITIES[name]
    return density.points(TRAIN_POINTS, seed=0), density.points(TEST_POINTS, seed=1), f"{name}, seeds 0 and 1"
