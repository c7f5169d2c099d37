"""Kernel distance against its definition, pair by pair, and what an unbiased estimate must do."""

import itertools
import pathlib
import runpy

import numpy as np
import pytest

from introvae_jax.metrics import kernel

FEATURES = pathlib.Path(__file__).parents[1] / "features"


def some_rows(seed, num=30, dims=5, offset=0.0):
    return np.random.default_rng(seed).standard_normal((num, dims)) + offset


def by_pairs(a, b):
    def k(x, y):
        return (sum(x * y) / len(x) + 1) ** 3

    within = [np.mean([k(x, y) for x, y in itertools.permutations(rows, 2)]) for rows in (a, b)]
    return sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])


def test_every_pair_by_hand():
    real, fake = some_rows(0), some_rows(1, offset=0.3)
    assert kernel.squared_mmd(real, fake) == pytest.approx(by_pairs(real, fake), rel=1e-12)
    whole = kernel.kernel_distance(real, fake, subsets=3, subset_size=30)
    assert whole["mean"] == pytest.approx(by_pairs(real, fake), rel=1e-12)
    assert whole["std"] == pytest.approx(0, abs=1e-14)  # all of both sets each time


def test_subsets_are_drawn_generated_first():
    real, fake = some_rows(0, 50), some_rows(1, 40, offset=0.3)
    rng, values = np.random.RandomState(7), []
    for _ in range(4):
        of_fake, of_real = rng.choice(40, 10, replace=False), rng.choice(50, 10, replace=False)
        values.append(by_pairs(real[of_real], fake[of_fake]))
    found = kernel.kernel_distance(real, fake, subsets=4, subset_size=10, seed=7)
    assert found == pytest.approx({"mean": np.mean(values), "std": np.std(values)}, rel=1e-11)


def test_it_is_zero_on_average_between_sets_of_one_kind_and_grows_with_a_shift():
    real = some_rows(0, 2000)
    same = kernel.kernel_distance(real, some_rows(1, 2000), subsets=50, subset_size=100)
    assert abs(same["mean"]) < 3 * same["std"] / 50**0.5 + 0.01
    shifted = [
        kernel.kernel_distance(real, some_rows(1, 2000, offset=by), subsets=10, subset_size=100)["mean"]
        for by in (0.2, 0.5, 1.0)
    ]
    assert 0.02 < shifted[0] < shifted[1] < shifted[2]


def test_memory_mapped_rows_of_single_precision(tmp_path):
    rows = np.float32(some_rows(0, 60))
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    options = {"subsets": 3, "subset_size": 20}
    assert kernel.kernel_distance(mapped, rows + 1, **options) == kernel.kernel_distance(
        np.float64(rows), rows + 1, **options
    )


def test_sets_that_cannot_be_compared_are_refused():
    rows = some_rows(0)
    with pytest.raises(ValueError, match="30 real and 20 generated"):
        kernel.kernel_distance(rows, rows[:20], subset_size=21)
    with pytest.raises(ValueError, match="2 are needed"):
        kernel.kernel_distance(rows, rows, subset_size=1)
    with pytest.raises(ValueError, match="0 subsets"):
        kernel.kernel_distance(rows, rows, subset_size=10, subsets=0)
    with pytest.raises(ValueError, match=r"must be \[N, D\]"):
        kernel.kernel_distance(rows, rows[:, 1:], subset_size=10)
    with pytest.raises(ValueError, match="not finite"):
        kernel.kernel_distance(rows, np.where(rows == rows[0, 0], np.nan, rows), subset_size=30)


def test_figures_of_torch_fidelity():
    real, fake = runpy.run_path(str(FEATURES / "random_weights.py"))["feature_sets"]()
    found = kernel.kernel_distance(real, fake, subsets=20, subset_size=500)
    with np.load(FEATURES / "golden_inception.npz") as golden:
        assert found["mean"] == pytest.approx(golden["kid_mean_torch_fidelity"].item(), rel=1e-6)
        assert found["std"] == pytest.approx(golden["kid_std_torch_fidelity"].item(), rel=1e-6)
