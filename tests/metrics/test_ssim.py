"""Structural similarity: an independent version in float64 and other people's figures (make_fixtures.py)."""

import pathlib

import jax
import numpy as np
import pytest
from scipy import ndimage

from introvae_jax.metrics import ssim

GOLDEN = pathlib.Path(__file__).parent / "ssim_golden.npz"
one_scale, five_scales = jax.jit(ssim.ssim), jax.jit(ssim.ms_ssim)


def some_pair(seed, side, channels=1, noise=0.2, num=3):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((num, side, side, channels)), (0, side / 16, side / 16, 0))
    a = (smooth - smooth.min()) / np.ptp(smooth)
    return a, np.clip(a + noise * rng.standard_normal(a.shape), 0, 1)


def maps(a, b):
    """Similarity and its contrast factor at every position, of two planes [H, W], in float64."""
    size = min(11, *a.shape)
    x = np.arange(size) - (size - 1) / 2
    line = np.exp(-(x**2) / (2 * (1.5 * size / 11) ** 2))
    window = np.outer(line, line) / line.sum() ** 2

    def smooth(plane):
        inside = (slice(size // 2, size // 2 + plane.shape[0] - size + 1),) * 2
        return ndimage.correlate(plane, window, mode="constant")[inside]

    ma, mb = smooth(a), smooth(b)
    va, vb, cov = smooth(a * a) - ma**2, smooth(b * b) - mb**2, smooth(a * b) - ma * mb
    contrast = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
    return (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2) * contrast, contrast


def means(a, b):
    planes = [maps(a[..., c], b[..., c]) for c in range(a.shape[-1])]
    return np.mean([p[0] for p in planes]), np.mean([p[1] for p in planes])


def multiscale(a, b):
    result = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        whole, contrast = means(a, b)
        result *= max(whole if scale == 4 else contrast, 0.0) ** weight
        a, b = (ndimage.uniform_filter(x, (2, 2, 1), origin=(-1, -1, 0))[::2, ::2] for x in (a, b))
    return result


@pytest.mark.parametrize("noise", [0.02, 0.2, 1.0])
@pytest.mark.parametrize(("side", "channels"), [(11, 1), (32, 3)])
def test_one_scale_as_in_double_precision(side, channels, noise):
    a, b = some_pair(0, side, channels, noise)
    expected = [means(x, y)[0] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(one_scale(np.float32(a), np.float32(b)), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("noise", [0.02, 0.2])
@pytest.mark.parametrize(("side", "channels"), [(16, 1), (32, 3), (48, 1), (128, 3)])
def test_five_scales_as_in_double_precision(side, channels, noise):
    a, b = some_pair(1, side, channels, noise)
    expected = [multiscale(x, y) for x, y in zip(a, b, strict=True)]
    found = five_scales(np.float32(a), np.float32(b))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert np.all((found > 0.05) & (found < 1))


@pytest.mark.parametrize("side", [16, 32, 64])
def test_an_image_is_like_itself_and_order_does_not_matter(side):
    a, b = (np.float32(x) for x in some_pair(2, side, 3))
    for measure in (one_scale, five_scales):
        np.testing.assert_allclose(measure(a, a), 1, rtol=1e-6)
        np.testing.assert_allclose(measure(a, b), measure(b, a), rtol=1e-6)


def test_plain_images_differ_in_luminance_alone():
    # Without contrast: (2 x y + c1) / (x^2 + y^2 + c1), with weight 0.1333 over five scales.
    a, b = np.full((1, 16, 16, 3), 0.25, np.float32), np.full((1, 16, 16, 3), 0.75, np.float32)
    luminance = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    np.testing.assert_allclose(one_scale(a, b), luminance, rtol=1e-4)
    np.testing.assert_allclose(five_scales(a, b), luminance**0.1333, rtol=1e-4)


def test_black_and_white():
    a, b = np.zeros((1, 16, 16, 1), np.float32), np.ones((1, 16, 16, 1), np.float32)
    np.testing.assert_allclose(one_scale(a, b), 1e-4 / (1 + 1e-4), rtol=1e-3)


def test_a_negative_is_below_zero_at_one_scale_and_zero_at_five():
    a, _ = some_pair(3, 64)
    a = np.float32(0.5 + 3 * (a - 0.5)).clip(0, 1)
    assert np.all(one_scale(a, 1 - a) < 0)
    np.testing.assert_array_equal(five_scales(a, 1 - a), 0)


def test_it_falls_with_noise():
    a, _ = some_pair(4, 64)
    noise = np.random.default_rng(5).standard_normal(a.shape)
    for measure in (one_scale, five_scales):
        scores = [measure(np.float32(a), np.float32(a + by * noise)).mean() for by in (0.02, 0.1, 0.3)]
        assert 0.999 > scores[0] > scores[1] + 0.02 > scores[2] + 0.04


def test_figures_of_tensorflow_and_scikit_image():
    with np.load(GOLDEN) as golden:
        a, b = (np.float32(golden[name]) / 255 for name in "ab")
        np.testing.assert_allclose(one_scale(a, b), golden["skimage_ssim"], rtol=1e-5)
        np.testing.assert_allclose(one_scale(a, b), golden["tensorflow_ssim"], rtol=2e-5)
        # TensorFlow takes the product for each channel, then the mean: the same for images of one channel.
        by_channel = [five_scales(a[..., c : c + 1], b[..., c : c + 1]) for c in range(a.shape[-1])]
        np.testing.assert_allclose(np.mean(by_channel, axis=0), golden["tensorflow_ms_ssim"], rtol=2e-5)


def test_images_that_cannot_be_compared_are_refused():
    image = np.zeros((1, 24, 24, 1), np.float32)
    with pytest.raises(ValueError, match="multiples of 16"):
        ssim.ms_ssim(image, image)
    with pytest.raises(ValueError, match="does not fit"):
        ssim.ssim(image[:, :10], image[:, :10])
    for measure in (ssim.ssim, ssim.ms_ssim):
        with pytest.raises(ValueError, match="must both be the same"):
            measure(image, image[:, :, :16])
