"""Precision and recall: by brute force, on sets where the answer is plain, and tile by tile."""

import numpy as np
import pytest
from scipy.spatial import distance

from introvae_jax.metrics.precision_recall import precision_recall


def cloud(seed, num, dims=4, at=0.0, spread=1.0):
    return at + spread * np.random.default_rng(seed).standard_normal((num, dims))


def by_brute_force(real, fake, k):
    def share_covered(points, by):
        reach = np.sort(distance.cdist(by, by), axis=1)[:, k]  # column 0 is the point itself
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(by, reach, strict=True)) for p in points])

    return {"precision": share_covered(fake, real), "recall": share_covered(real, fake)}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("tile", [5, 32, 1000])
def test_brute_force_for_any_tile(k, tile):
    real, fake = cloud(0, 70), cloud(1, 53, at=1.5, spread=0.8)
    found = precision_recall(real, fake, neighbours=k, tile=tile)
    assert found == pytest.approx(by_brute_force(real, fake, k))
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1


def test_a_dropped_mode_costs_recall_alone():
    real = np.concatenate([cloud(0, 200), cloud(1, 200, at=50)])
    fake = cloud(2, 200)
    found = precision_recall(real, fake)
    assert found["precision"] > 0.8
    assert 0.4 < found["recall"] < 0.5


def test_outliers_cost_precision_alone():
    real = cloud(0, 200)
    fake = np.concatenate([cloud(1, 200), cloud(2, 200, at=1000, spread=0.1)])
    found = precision_recall(real, fake)
    assert found["recall"] > 0.8
    assert 0.4 < found["precision"] <= 0.5


def test_identical_sets_and_sets_far_apart():
    real = cloud(0, 50)
    assert precision_recall(real, real[::-1]) == {"precision": 1.0, "recall": 1.0}
    assert precision_recall(real, real + 100) == {"precision": 0.0, "recall": 0.0}


def test_a_line_by_hand():
    # Reaches to the nearest other point: real 1, 1, 2 about 0, 1, 3; fake 1, 1 about 4.5, 5.5.
    real, fake = np.array([[0.0], [1], [3]]), np.array([[4.5], [5.5]])
    found = precision_recall(real, fake, neighbours=1)
    assert found == {"precision": 0.5, "recall": 0.0}


def test_a_point_on_the_sphere_is_inside_however_far_the_data_is_from_zero():
    # Reach 1 about 3; the generated 4 is at exactly that distance, before rounding.
    real, fake = np.array([[0.0], [2], [3]]), np.array([[4.0], [9]])
    for offset in (0.0, 0.1, 1e3 + 0.1):
        found = precision_recall(real * 0.3 + offset, fake * 0.3 + offset, neighbours=1)
        assert found["precision"] == 0.5, offset


def test_copies_of_one_image_cover_that_image_only():
    real = cloud(0, 40)
    fake = np.repeat(real[:1], 20, axis=0)
    assert precision_recall(real, fake) == {"precision": 1.0, "recall": 1 / 40}


def test_memory_mapped_features(tmp_path):
    rows = np.float32(cloud(0, 60))
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    fake = cloud(1, 30)
    assert precision_recall(mapped, fake, tile=16) == precision_recall(np.float64(rows), fake, tile=16)


def test_sets_that_cannot_be_compared_are_refused():
    rows = cloud(0, 20)
    with pytest.raises(ValueError, match="no 3 neighbours"):
        precision_recall(rows, rows[:3])
    with pytest.raises(ValueError, match=r"must be \[N, D\]"):
        precision_recall(rows, rows[:, 1:])
    broken = np.where(rows == rows[3, 2], np.nan, rows)
    for real, fake in ((rows, broken), (broken, rows)):
        with pytest.raises(ValueError, match="not finite"):
            precision_recall(real, fake)
