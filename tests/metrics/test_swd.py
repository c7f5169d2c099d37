"""Sliced Wasserstein distance: its parts against references, and that worse images score worse."""

import numpy as np
import pytest

from introvae_jax.data import digits
from introvae_jax.metrics import swd


def some_digits(seed, num=256):
    images, _ = digits.load()
    return images[np.random.default_rng(seed).permutation(len(images))[:num]]


def test_the_distance_of_two_shifted_gaussians_is_that_of_their_projections():
    # Along a unit direction u the sets differ by shift @ u; E|u_1| over directions in 3-D is 1/2.
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4000, 3)).astype(np.float32)
    assert swd.sliced_distance(a, a + np.float32([2, 0, 0]), rng) == pytest.approx(2 * 0.5, rel=0.1)


def test_the_pyramid_can_be_put_together_again():
    images = some_digits(0, 4)
    fine, coarse = swd.laplacian_pyramid(images)
    assert (fine.shape, coarse.shape) == ((4, 32, 32, 1), (4, 16, 16, 1))
    np.testing.assert_allclose(fine + swd._expand(coarse), images, atol=1e-3)


def test_a_constant_image_has_no_detail():
    fine, coarse = swd.laplacian_pyramid(np.full((1, 32, 32, 3), 200, np.uint8))
    np.testing.assert_allclose(fine, 0, atol=1e-3)
    np.testing.assert_allclose(coarse, 200, atol=1e-3)


def test_identical_sets_score_nothing_and_order_does_not_matter_much():
    images = some_digits(0)
    same = swd.swd(images, images)
    shuffled = swd.swd(images, images[::-1])
    assert max(same.values()) > 0  # patches are drawn anew for the second set
    assert shuffled["mean"] == pytest.approx(same["mean"], rel=0.5)


def test_it_rises_with_blur_and_noise():
    real, other = some_digits(0), some_digits(1)
    floor = swd.swd(real, other)["mean"]
    noise = np.random.default_rng(0).normal(0, 1, other.shape)
    blurred = np.uint8(np.clip(swd._blur(np.float32(other)), 0, 255))
    ladder = [np.uint8(np.clip(other + strength * noise, 0, 255)) for strength in (20, 60)]
    scores = [swd.swd(real, worse)["mean"] for worse in ladder]
    assert 1.5 * floor < scores[0] < scores[1]
    assert swd.swd(real, blurred)["mean"] > 1.5 * floor


def test_sets_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        swd.swd(some_digits(0, 4), some_digits(1, 5))
