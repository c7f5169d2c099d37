"""Sliced Wasserstein distance: a slow version of it, its parts, and that worse images score worse."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from introvae_jax.data import digits
from introvae_jax.metrics import swd


def some_digits(seed, num=256):
    images, _ = digits.load()
    return images[np.random.default_rng(seed).permutation(len(images))[:num]]


def some_pictures(seed, num=6, side=64, channels=3):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((num, side, side, channels)), (0, 3, 3, 0))
    return np.uint8(np.clip(128 + 300 * smooth + rng.normal(0, 10, smooth.shape), 0, 255))


def blurred(images, factor=1):
    for axis in (1, 2):
        images = factor * ndimage.correlate1d(images, np.array([1, 4, 6, 4, 1]) / 16, axis=axis, mode="mirror")
    return images


def slow_levels(images):
    levels = [np.float64(images)]
    while levels[-1].shape[1] > 16:
        smaller = blurred(levels[-1])[:, ::2, ::2]
        wide = np.zeros_like(levels[-1])
        wide[:, ::2, ::2] = smaller
        levels[-1] = levels[-1] - blurred(wide, factor=2)
        levels.append(smaller)
    return levels


def slow_descriptors(images, level, seed):
    """Patches [N * 128, 7, 7, C], normalised, one at a time."""
    found = []
    for number, image in enumerate(images):
        corners = swd.positions(seed, level, number, 1, image.shape[0])
        found += [image[top : top + 7, left : left + 7] for top, left in zip(*corners, strict=True)]
    found = np.array(found)
    for channel in range(found.shape[-1]):
        one = found[..., channel]
        found[..., channel] = (one - one.mean()) / one.std()
    return found.reshape(len(found), -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_what_a_slow_version_says(channels):
    real, fake = (some_pictures(seed, channels=channels) for seed in (0, 1))
    expected = {}
    for level, pair in enumerate(zip(slow_levels(real), slow_levels(fake), strict=True)):
        a, b = (slow_descriptors(images, level, seed=5) for images in pair)
        along = swd.directions(5, a.shape[1])[:40]
        expected[pair[0].shape[1]] = np.mean([stats.wasserstein_distance(a @ u, b @ u) for u in along])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swd, "directions", lambda seed, dims, all_=swd.directions: all_(seed, dims)[:40])
        patch.setattr(swd, "DIRECTIONS", 40)
        found = swd.swd(real, fake, seed=5)
    assert list(found) == ["64", "32", "16", "mean"]
    for size, value in expected.items():
        assert found[str(size)] == pytest.approx(1e3 * value, rel=1e-4)
    assert found["mean"] == pytest.approx(1e3 * np.mean(list(expected.values())), rel=1e-4)


def test_two_shifted_gaussians():
    # Entries up by m in half the places and down in the others: all of it is left after normalisation, divided by the
    # deviation, and a direction u sees |shift . u|. E|u_1| on the sphere of 98 dimensions by its gamma functions.
    pattern = np.tile([1.0, 1.0, -1.0, -1.0], 25)[:98]
    pattern[-2:] = 0  # both channels: as many up as down
    noise = np.random.default_rng(0).standard_normal((4000, 98))
    a, b = (np.float32(noise + sign * pattern) for sign in (1, -1))
    mean_of_one = math.exp(math.lgamma(98 / 2) - math.lgamma(99 / 2)) / math.pi**0.5
    expected = 2 * np.linalg.norm(pattern) * mean_of_one / np.sqrt(1 + 48 / 49)
    assert swd.distance(a, b) == pytest.approx(expected, rel=0.1)


def test_the_pyramid_is_scipys_and_can_be_put_together_again():
    images = some_pictures(0, 3, side=128)
    levels = swd.laplacian_pyramid(images)
    assert [level.shape[1] for level in levels] == swd.sizes(128) == [128, 64, 32, 16]
    for level, slow in zip(levels, slow_levels(images), strict=True):
        np.testing.assert_allclose(level, slow, atol=1e-3)
    whole = levels[-1]
    for level in levels[-2::-1]:
        whole = level + swd._doubled(swd._doubled(whole, 1), 2)
    np.testing.assert_allclose(whole, images, atol=1e-3)


def test_a_constant_image_has_no_detail():
    fine, coarse = swd.laplacian_pyramid(np.full((1, 32, 32, 3), 200, np.uint8))
    np.testing.assert_allclose(fine, 0, atol=1e-3)
    np.testing.assert_allclose(coarse, 200, atol=1e-3)


def test_sets_without_any_contrast_are_alike():
    grey, white = (np.full((2, 32, 32, 1), level, np.uint8) for level in (128, 255))
    assert swd.swd(grey, white) == {"32": 0.0, "16": 0.0, "mean": 0.0}


@pytest.mark.parametrize("split", [[1], [4], [1, 2, 3, 4, 5]])
def test_descriptors_do_not_depend_on_the_batches(split):
    images = some_pictures(0)
    whole = swd.descriptors(images, seed=3)
    first, parts = 0, []
    for batch in np.split(images, split):
        parts.append(swd.descriptors(batch, seed=3, first=first))
        first += len(batch)
    for level, of_parts in zip(whole, zip(*parts, strict=True), strict=True):
        assert level.dtype == np.float32
        assert level.shape == (6 * 128, 49 * 3)
        np.testing.assert_array_equal(level, np.concatenate(of_parts))


def test_patches_lie_everywhere_and_differ_by_seed_level_and_image():
    top, left = swd.positions(0, 1, 0, 2000, 16)
    for found in (top, left):
        shares = np.bincount(found, minlength=10) / len(found)
        np.testing.assert_allclose(shares, 0.1, atol=0.005)
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.01
    draws = [swd.positions(*which, 1, 64)[0] for which in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({tuple(draw) for draw in draws}) == 4


def test_memory_in_chunks_changes_nothing(tmp_path, monkeypatch):
    levels = [swd.descriptors(some_pictures(seed), seed=0)[1] for seed in (0, 1)]
    whole = swd.distance(*levels)
    mapped = []
    for name, level in zip("ab", levels, strict=True):
        np.save(tmp_path / f"{name}.npy", level)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    monkeypatch.setattr(swd, "FLOATS", 100 * len(levels[0]))
    monkeypatch.setattr(swd, "ROWS", 100)
    assert swd.distance(*mapped) == pytest.approx(whole, rel=1e-5)


def test_identical_sets_score_nothing_and_order_does_not_matter_much():
    images = some_digits(0)
    assert set(swd.swd(images, images).values()) == {0.0}
    floor = swd.swd(images, some_digits(1))["mean"]
    assert 0 < swd.swd(images, images[::-1])["mean"] < floor  # the same images, other patches of each


def test_it_rises_with_blur_and_noise():
    real, other = some_digits(0), some_digits(1)
    floor = swd.swd(real, other)["mean"]
    noise = np.random.default_rng(0).normal(0, 1, other.shape)
    ladder = [np.uint8(np.clip(other + strength * noise, 0, 255)) for strength in (20, 60)]
    scores = [swd.swd(real, worse)["mean"] for worse in ladder]
    assert 1.5 * floor < scores[0] < scores[1]
    assert swd.swd(real, np.uint8(blurred(np.float64(other))))["mean"] > 1.5 * floor


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        swd.swd(some_digits(0, 4), some_digits(1, 5))
    for side in (8, 24, 48):
        with pytest.raises(ValueError, match="power of two"):
            swd.descriptors(np.zeros((2, side, side, 1), np.uint8), seed=0)
    with pytest.raises(ValueError, match="must be uint8"):
        swd.descriptors(np.zeros((2, 32, 16, 1), np.uint8), seed=0)
    with pytest.raises(ValueError, match="must be uint8"):
        swd.descriptors(np.zeros((2, 32, 32, 1), np.float32), seed=0)
    with pytest.raises(ValueError, match="must have one shape"):
        swd.distance(np.zeros((9, 48), np.float32), np.zeros((9, 48), np.float32))
