"""Pixel errors of copies: by hand, image by image, and where there is none."""

import numpy as np
import pytest

from introvae_jax.metrics import reconstruction


def test_by_hand():
    images = np.zeros((3, 2, 2, 1))
    copies = images.copy()
    copies[0] = 0.1  # 0.01 everywhere
    copies[1, 0, 0, 0] = 1.0  # 1 in one of four pixels
    copies[2] = -2.0  # outside the range, and counted so
    found = reconstruction.errors(images, copies)
    np.testing.assert_allclose(found["mse"], [0.01, 0.25, 4.0], rtol=1e-12)
    np.testing.assert_allclose(found["psnr"], [20.0, 10 * np.log10(4), -10 * np.log10(4)], rtol=1e-12)


def test_rounding_to_eight_bits_is_the_best_that_is_told_apart():
    images = np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 3))
    rounded = reconstruction.errors(images, np.round(255 * images) / 255)
    np.testing.assert_allclose(rounded["psnr"], 58.92, atol=0.2)
    equal = reconstruction.errors(images, images)
    np.testing.assert_array_equal(equal["mse"], 0)
    np.testing.assert_allclose(equal["psnr"], 58.92, atol=0.005)


def test_single_precision_is_averaged_in_double():
    images = np.zeros((1, 512, 512, 3), np.float32)
    copies = np.full_like(images, 1e-2)
    assert reconstruction.errors(images, copies)["mse"][0] == pytest.approx(
        np.float64(copies[0, 0, 0, 0]) ** 2, rel=1e-12
    )


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        reconstruction.errors(np.zeros((2, 4, 4, 1)), np.zeros((1, 4, 4, 1)))
