"""The 2-D densities have the shapes that their figures speak of."""

import numpy as np
import pytest

from introvae_jax.data import densities
from introvae_jax.data.densities import DENSITIES


@pytest.mark.parametrize("name", DENSITIES)
def test_points_are_fixed_by_their_seed_and_fit_the_square(name):
    density = DENSITIES[name]
    points = density.points(10_000, seed=3)
    assert (points.shape, points.dtype) == ((10_000, 2), np.float32)
    np.testing.assert_array_equal(points, density.points(10_000, seed=3))
    assert not np.array_equal(points, density.points(10_000, seed=4))
    assert 0.5 * density.reach < np.abs(points).max() < 1.05 * density.reach


def test_eight_gaussians_stand_on_a_circle_and_are_equally_heavy():
    points = DENSITIES["8gaussians"].points(80_000, seed=0)
    radius, angle = np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])
    mode = np.round(angle / (np.pi / 4)).astype(int) % 8
    np.testing.assert_allclose(np.bincount(mode) / 10_000, 1, atol=0.05)
    assert radius.mean() == pytest.approx(np.sqrt(2), rel=1e-3)
    assert radius.std() == pytest.approx(0.02 / np.sqrt(2), rel=0.02)


def test_rings_have_their_radii_and_equal_weights():
    radius = np.hypot(*DENSITIES["rings"].points(80_000, seed=0).T)
    ring = np.round(radius / 0.75).astype(int)
    np.testing.assert_allclose([np.mean(ring == k) for k in (1, 2, 3, 4)], 0.25, atol=0.01)


def test_the_checkerboard_is_uniform_on_every_second_square():
    cells = np.floor(DENSITIES["checkerboard"].points(80_000, seed=0) / 2).astype(int)
    weights = {tuple(cell): np.mean((cells == cell).all(1)) for cell in np.unique(cells, axis=0)}
    assert len(weights) == 8
    assert len({(x + y) % 2 for x, y in weights}) == 1
    np.testing.assert_allclose(list(weights.values()), 1 / 8, atol=0.01)


def test_a_spiral_turned_by_half_a_turn_is_the_other_one():
    points = DENSITIES["2spirals"].points(200_000, seed=0)
    assert np.abs(points.mean(0)).max() < 0.02
    counts = [np.histogram2d(*(sign * points).T, bins=20, range=[[-4, 4]] * 2)[0] for sign in (1, -1)]
    assert np.abs(counts[0] - counts[1]).sum() < 0.05 * len(points)


def test_training_and_test_points_differ():
    train, test, identity = densities.open_splits("rings")
    assert len(train) == densities.TRAIN_POINTS
    assert not set(map(tuple, test[:1000])) & set(map(tuple, train))
    assert "rings" in identity
