"""The 2-D figures against closed forms, bounds, and scipy-free references."""

import numpy as np
import pytest

from introvae_jax.data.densities import DENSITIES
from introvae_jax.metrics import density2d


def gaussian(num, mean, std, seed):
    return mean + std * np.random.default_rng(seed).standard_normal((num, 2))


def counts(points):
    return density2d.cell_counts(points, 4.0)


def test_kl_is_that_of_two_gaussians():
    # KL(N(0, 1) || N(m, s^2)) = log s + (1 + m^2) / (2 s^2) - 1/2 in each of the two dimensions.
    truth, model = gaussian(4_000_000, 0.0, 0.8, 0), gaussian(4_000_000, 0.3, 0.9, 1)
    expected = 2 * (np.log(0.9 / 0.8) + (0.8**2 + 0.3**2) / (2 * 0.9**2) - 0.5)
    # Two finite sets over some 10,000 cells add about 10,000 / 4,000,000 to it.
    assert density2d.kl(counts(truth), counts(model)) == pytest.approx(expected + 0.0025, rel=0.02)


def test_jsd_equals_its_integral():
    truth, model = gaussian(4_000_000, 0.0, 0.8, 0), gaussian(4_000_000, 0.5, 0.6, 1)
    grid = (np.arange(400) + 0.5) / 50 - 4
    x, y = np.meshgrid(grid, grid)
    density = lambda mean, std: np.exp(-((x - mean) ** 2 + (y - mean) ** 2) / (2 * std**2)) / (2 * np.pi * std**2)  # noqa: E731
    p, q = density(0.0, 0.8), density(0.5, 0.6)
    m = (p + q) / 2
    expected = 0.5 * np.sum(p * np.log(p / m) + q * np.log(q / m)) / 50**2
    assert density2d.jsd(counts(truth), counts(model)) == pytest.approx(expected, rel=0.02)


def test_bounds():
    here, there = gaussian(1000, -2.0, 0.1, 0), gaussian(1000, 2.0, 0.1, 1)
    assert density2d.jsd(counts(here), counts(there)) == pytest.approx(np.log(2))
    assert density2d.jsd(counts(here), counts(here)) == pytest.approx(0, abs=1e-12)
    assert density2d.kl(counts(here), counts(here)) < 0.01
    assert np.isfinite(density2d.kl(counts(here), counts(there)))


def test_points_outside_the_grid_count():
    inside = gaussian(1000, 0.0, 0.1, 0)
    half_lost = np.concatenate([inside, inside + 100])
    assert counts(half_lost)[-1] == 1000
    assert density2d.kl(counts(inside), counts(half_lost)) == pytest.approx(np.log(2), rel=0.02)


@pytest.mark.parametrize("name", DENSITIES)
def test_a_lost_mode_and_a_blur_score_above_the_floor(name):
    density = DENSITIES[name]
    truth, fresh = density.points(400_000, 0), density.points(100_000, 1)
    lost = fresh[fresh[:, 0] > -0.5 * density.reach / 2]
    blurred = fresh + 0.1 * density.reach * np.random.default_rng(0).standard_normal(fresh.shape)
    floor = density2d.scores(truth, fresh, density.reach)
    for worse in (density2d.scores(truth, some, density.reach) for some in (lost, blurred)):
        assert worse.kl > 2 * floor.kl
        assert worse.jsd > 2 * floor.jsd


def test_the_legacy_floor_is_as_large_as_its_users_saw():
    expected = {"8gaussians": (0.2, 1.2), "2spirals": (5, 9), "rings": (5, 9), "checkerboard": (14, 20)}
    for name, (low, high) in expected.items():
        density = DENSITIES[name]
        kl = density2d.legacy_kl(density.points(5000, 0), density.points(5000, 1), density.reach)
        assert low < kl < high, name
