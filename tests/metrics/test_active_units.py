"""Active units: how many latent dimensions vary over the data."""

import numpy as np
import pytest

from introvae_jax.metrics.active_units import active_units


def test_dimensions_by_their_variance():
    # Values -s and s, as many of each, have variance s^2.
    signs = np.array([1.0, -1.0] * 50)[:, None]
    mus = signs * np.sqrt([0.0, 0.0099, 0.0101, 1.0, 25.0])
    assert active_units(mus) == 3
    assert active_units(mus, threshold=0.5) == 2
    assert active_units(mus + 100) == 3  # a constant is not activity


def test_single_precision_far_from_zero():
    # Steps of 1/16 are exact in float32 at 1e5; a float32 mean of them would not be.
    mus = np.float32(1e5 + np.random.default_rng(0).integers(0, 2, (1000, 2)) * [1 / 16, 1])
    assert active_units(mus) == 1


def test_means_that_cannot_vary_are_refused():
    with pytest.raises(ValueError, match="N of 2 or more"):
        active_units(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="not finite"):
        active_units(np.array([[0.0], [np.nan]]))
