"""Frechet distance: closed forms, other people's figures, and moments that do not depend on how rows arrive."""

import pathlib
import runpy

import numpy as np
import pytest
from scipy import linalg

from introvae_jax.metrics import frechet

FEATURES = pathlib.Path(__file__).parents[1] / "features"


def moments(rows, split=None):
    found = frechet.Moments()
    for batch in np.split(rows, split or []):
        found.add(batch)
    return found


def some_rows(seed, num=200, dims=12, offset=0.0):
    rng = np.random.default_rng(seed)
    return offset + rng.standard_normal((num, dims)) @ rng.standard_normal((dims, dims))


def covariance(seed, dims=6):
    root = np.random.default_rng(seed).standard_normal((dims, dims))
    return root @ root.T


@pytest.mark.parametrize("split", [[], [1], [199], [1, 2, 3], list(range(1, 200)), [50, 50, 120]])
def test_moments_are_numpys_for_any_split(split):
    rows = some_rows(0, offset=1e4)
    found = moments(rows, split)
    assert found.count == 200
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-9)


def test_many_rows_at_once_are_read_in_tiles(tmp_path, monkeypatch):
    rows = np.float32(some_rows(1))
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.setattr(frechet, "TILE", 64)
    found = moments(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    np.testing.assert_allclose(found.covariance, np.cov(np.float64(rows), rowvar=False), rtol=1e-12, atol=1e-12)


def test_a_mean_far_from_zero_costs_no_digits():
    # The sum of squares less the squared sum would leave nothing of a variance 20 digits below the square.
    rows = 1e10 + np.array([[0.0], [1.0], [2.0], [3.0]])
    assert moments(rows, [1, 2]).covariance.item() == pytest.approx(5 / 3, rel=1e-6)


def test_in_one_dimension_it_is_the_difference_of_means_and_deviations():
    a, b = (frechet.Moments.of(9, [mean], [[std**2]]) for mean, std in ((1.0, 2.0), (4.0, 0.5)))
    assert frechet.distance(a, b) == pytest.approx(3.0**2 + 1.5**2, rel=1e-14)


def test_commuting_covariances():
    # One basis, eigenvalues p and q: sum (sqrt p - sqrt q)^2.
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    p, q = np.array([4.0, 1.0, 9.0, 0.0, 1e-4]), np.array([1.0, 1.0, 0.25, 16.0, 1e-8])
    a, b = (frechet.Moments.of(9, np.zeros(5), (basis * values) @ basis.T) for values in (p, q))
    assert frechet.distance(a, b) == pytest.approx(np.sum((p**0.5 - q**0.5) ** 2), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_any_covariances_as_with_scipys_matrix_root(seed):
    a, b = covariance(seed), covariance(seed + 10)
    assert np.linalg.norm(a @ b - b @ a) > 1
    mean = np.random.default_rng(seed).standard_normal(6)
    expected = mean @ mean + np.trace(a + b) - 2 * np.trace(linalg.sqrtm(a @ b)).real
    found = frechet.distance(frechet.Moments.of(9, mean, a), frechet.Moments.of(9, np.zeros(6), b))
    assert found == pytest.approx(expected, rel=1e-12)


def test_order_of_rows_and_of_sets_does_not_matter():
    a, b = some_rows(0), some_rows(1, 150)
    there, back = frechet.distance(moments(a), moments(b)), frechet.distance(moments(b[::-1]), moments(a[::-1]))
    assert there > 1
    assert back == pytest.approx(there, rel=1e-12)


@pytest.mark.parametrize(("num", "dims"), [(200, 12), (5, 12), (2, 300)])
def test_identical_sets_are_at_zero(num, dims):
    rows = 1e3 * some_rows(0, num, dims)
    scale = np.square(rows - rows.mean(axis=0)).sum()
    assert 0 <= frechet.distance(moments(rows), moments(rows, [1])) < 1e-12 * scale


def test_fewer_images_than_dimensions():
    # Two images each span a line: with directions u and v of lengths s and t the cross term is s t |cos|.
    a, b = np.array([[0.0, 0, 0], [2, 0, 0]]), np.array([[0.0, 0, 0], [2, 2, 0]])
    s, t, cos = 2**0.5, 4**0.5, 0.5**0.5
    expected = 1.0 + s**2 + t**2 - 2 * s * t * cos
    assert frechet.distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-12)


def test_a_shift_alone_is_its_square():
    rows = some_rows(3, 40)
    assert frechet.distance(moments(rows), moments(rows + 0.5)) == pytest.approx(12 * 0.25, rel=1e-9)


def test_sets_that_cannot_be_compared_are_refused():
    rows = some_rows(0)
    with pytest.raises(ValueError, match="at least 2"):
        frechet.distance(moments(rows), moments(rows[:1]))
    with pytest.raises(ValueError, match="at least 2"):
        _ = moments(rows[:1]).covariance
    with pytest.raises(ValueError, match="0 images"):
        _ = frechet.Moments().mean
    with pytest.raises(ValueError, match="12 and 11"):
        frechet.distance(moments(rows), moments(rows[:, 1:]))
    with pytest.raises(ValueError, match=r"expected \[B, 12\]"):
        moments(rows).add(rows[:, 1:])
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            moments(np.where(rows == rows[3, 2], wrong, rows))
    with pytest.raises(ValueError, match="no such set"):
        frechet.Moments.of(9, np.zeros(3), np.eye(4))
    with pytest.raises(ValueError, match="not finite"):
        frechet.Moments.of(9, np.zeros(3), np.full((3, 3), np.nan))


def test_figures_of_pytorch_fid_and_torch_fidelity():
    real, fake = runpy.run_path(str(FEATURES / "random_weights.py"))["feature_sets"]()
    found = frechet.distance(moments(real, [1000]), moments(fake, [77]))
    with np.load(FEATURES / "golden_inception.npz") as golden:
        for maker in ("pytorch_fid", "torch_fidelity"):
            assert found == pytest.approx(golden[f"fid_{maker}"].item(), rel=1e-8)
