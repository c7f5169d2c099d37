"""Every image goes where it should, once and in order, whatever the batches; what is kept does not grow."""

import errno
import gc
import os
import tempfile
import tracemalloc

import jax
import numpy as np
import pytest
from small import blobs

from introvae_jax import parallel
from introvae_jax.data import loader
from introvae_jax.evaluation import image_sets
from introvae_jax.evaluation.extractors import FeatureExtractor, FeatureExtractors
from introvae_jax.metrics import accumulators, frechet, msssim, ssim, swd


class Seen:
    """An accumulator that keeps everything."""

    def __init__(self):
        self.value = []

    def add(self, rows):
        assert isinstance(rows, np.ndarray)
        self.value += [int(row) for row in rows]


@pytest.fixture
def numbered():
    """A thousand images of which each pixel is the image's own number, modulo 256."""
    return np.arange(1000, dtype=np.uint16).astype(np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 1), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 64, 1000])
def test_parts_that_overlap_get_their_images_once_and_in_order(numbered, batch_size):
    images = image_sets.from_source(numbered[:100], (16, 16, 1), "real", {}, seed=3)
    order = np.random.default_rng(3).permutation(100)
    seen = {"one": 0, "two": 0}

    def extractor(name, factor):
        def extract(batch):
            seen[name] += len(batch)
            return factor * batch[:, 0, 0, 0].astype(np.int64)

        return FeatureExtractor(extract, {})

    spans = [("one", 0, 10), ("one", 5, 15), ("two", 9, 30), ("one", 0, 1), ("two", 29, 31), ("two", 10, 20)]
    parts = [image_sets.Part(name, Seen, start, stop) for name, start, stop in spans]
    extractors = {"one": extractor("one", 1), "two": extractor("two", 2)}
    found = image_sets.accumulate(images, parts, extractors, batch_size=batch_size, title="test")
    for part in parts:
        factor = 1 if part.features == "one" else 2
        assert found[part] == [factor * i for i in order[part.start : part.stop]]
    assert seen["one"] <= 15 + batch_size  # an extractor gets no batch that no part of it needs
    assert seen["two"] <= 31 - 9 + 2 * batch_size


def test_no_parts_read_nothing():
    images = image_sets.ImageSet(5, (1, 1, 1), lambda count, size: iter([] if not count else [1 / 0]), {})
    assert image_sets.accumulate(images, [], {}, batch_size=4, title="test") == {}
    assert list(loader.once(np.zeros((5, 2)), np.arange(0), batch_size=2)) == []


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 0), (7, 1), (7, 4), (64, 0), (2000, 3)])
def test_once_is_each_image_once_and_in_this_order(numbered, batch_size, threads):
    rows = np.random.default_rng(0).permutation(1000)[:333]
    batches = list(loader.once(np.arange(1000), rows, batch_size=batch_size, threads=threads))
    np.testing.assert_array_equal(np.concatenate(batches), rows)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_another_seed_is_another_order(numbered):
    firsts = []
    for seed in (0, 0, 1, 2**32 - 1):
        images = image_sets.from_source(numbered, (16, 16, 1), "real", {"data": "x"}, seed)
        firsts.append(next(iter(images.batches(1000, 50)))[:, 0, 0, 0].tolist())
        assert images.metadata == {"real": {"data": "x", "images": 1000, "order_seed": seed}}
    assert firsts[0] == firsts[1] != firsts[2] != firsts[3]


def accumulated(make, images, size):
    accumulator = make()
    for start in range(0, len(images), size):
        accumulator.add(images[start : start + size])
    return accumulator.value


@pytest.mark.parametrize("size", [1, 5, 11, 32])
def test_accumulators_do_not_depend_on_the_batches(size):
    images = blobs(23, 0)
    features = np.random.default_rng(1).normal(3, 1, (23, 6)).astype(np.float32)
    moments = accumulated(frechet.MomentsAccumulator, features, size)
    assert moments.count == 23
    np.testing.assert_allclose(moments.mean, np.float64(features).mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(np.float64(features), rowvar=False), rtol=1e-10)
    rows = accumulated(accumulators.Rows, features, size)
    np.testing.assert_array_equal(rows[:], features)
    np.testing.assert_array_equal(rows[np.array([22, 0, 7, 7])], features[[22, 0, 7, 7]])
    for some in (slice(3, 9), slice(20, 99), slice(5, 5), slice(9, 3), slice(1, 20, 4), slice(-2, None)):
        np.testing.assert_array_equal(rows[some], features[some])
    assert (len(rows), rows.shape, rows.ndim) == (23, (23, 6), 2)
    for level, whole in zip(accumulated(swd.PatchesAccumulator, images, size), swd.descriptors(images, 0), strict=True):
        np.testing.assert_array_equal(level[:], whole)
    pairs = accumulated(msssim.PairsAccumulator, images, size)
    x = images[:22].astype(np.float32) / 255
    assert pairs == pytest.approx(float(np.mean(ssim.ms_ssim(x[::2], x[1::2]))), rel=1e-5)


def test_moments_may_be_asked_for_amid_the_stream():
    features = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    accumulator = frechet.MomentsAccumulator()
    accumulator.add(features[:5])
    assert accumulator.value.count == 5
    accumulator.add(features[5:])
    np.testing.assert_allclose(accumulator.value.covariance, np.cov(np.float64(features), rowvar=False), rtol=1e-9)


def test_memory_of_moments_does_not_grow_with_the_images():
    batch, peaks = np.ones((256, 64), np.float32), []
    for batches in (8, 80):
        gc.collect()
        tracemalloc.start()
        accumulator = frechet.MomentsAccumulator()
        for _ in range(batches):
            accumulator.add(batch.copy())
        assert accumulator.value.count == 256 * batches
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_rows_lie_on_disk_and_leave_with_their_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    batch = np.random.default_rng(0).normal(size=(1000, 256)).astype(np.float32)  # 1 MB
    tracemalloc.start()
    rows = accumulators.Rows()
    for _ in range(20):
        rows.add(batch)
    value = rows.value
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 5e6 < 4 * value.shape[0] * value.shape[1]
    np.testing.assert_array_equal(value[19_000:], batch)
    del rows, value
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_rows_are_read_without_the_names_that_windows_lacks_and_may_be_added_after_that(monkeypatch):
    monkeypatch.delattr(os, "preadv", raising=False)
    batch = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    rows = accumulators.Rows()
    rows.add(batch)
    np.testing.assert_array_equal(rows.value[1:3], batch[1:3])
    rows.add(batch + 1)
    np.testing.assert_array_equal(rows.value[np.array([9, 0, 5])], [batch[4] + 1, batch[0], batch[0] + 1])
    assert rows.value[10:].shape == (0, 3)


def test_a_full_disk_is_named(monkeypatch):
    rows = accumulators.Rows()

    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rows, "_file", Full())
    with pytest.raises(OSError, match="No space left on device") as caught:
        rows.add(np.zeros((1, 3), np.float32))
    assert tempfile.gettempdir() in caught.value.filename
    assert "TMPDIR" in caught.value.filename


def test_features_depend_neither_on_the_batches_nor_on_the_devices(monkeypatch):
    images = blobs(9, 0, channels=1)
    assert jax.local_device_count() == 4
    found = {}
    for devices in (4, 1):
        monkeypatch.setattr(
            parallel, "local_replicas", lambda n=devices: parallel.replicas(tuple(jax.local_devices()[:n]))
        )
        extract = FeatureExtractors().make("alexnet").extract
        for size in (8, 3):
            parts = [np.asarray(extract(images[start : start + size])) for start in range(0, 9, size)]
            found[devices, size] = np.concatenate(parts)
            assert found[devices, size].shape == (9, 256)
    reference = found.pop((4, 8))
    for features in found.values():
        np.testing.assert_allclose(features, reference, rtol=1e-4, atol=1e-5)
    grey = np.repeat(images, 3, axis=-1)
    np.testing.assert_allclose(np.asarray(extract(grey)), reference, rtol=1e-4, atol=1e-5)


def test_moments_of_a_file_are_those_that_were_kept():
    moments = accumulated(frechet.MomentsAccumulator, np.random.default_rng(0).normal(size=(50, 5)), 7)
    again = frechet.Moments.of(50, moments.mean, moments.covariance)
    assert frechet.distance(moments, again) < 1e-12
