"""The order of the images: complete passes, another order each time, resumable, independent of the processes."""

import itertools

import numpy as np

from introvae_jax.data import loader

IMAGES = np.arange(24, dtype=np.uint8).reshape(24, 1, 1, 1)


def take(count, **options):
    options = {"batch_size": 8, "seed": 1} | options
    return [batch.ravel() for batch in itertools.islice(loader.batches(IMAGES, **options), count)]


def test_each_pass_shows_every_image_once_in_another_order():
    passes = np.stack(take(6)).reshape(2, 24)
    for one in passes:
        np.testing.assert_array_equal(np.sort(one), IMAGES.ravel())
    assert not np.array_equal(passes[0], passes[1])
    assert not np.array_equal(passes[0], np.arange(24))


def test_a_batch_may_be_one_image():
    np.testing.assert_array_equal(np.concatenate(take(24, batch_size=1)), np.concatenate(take(3)))


def test_the_seed_decides_the_order():
    np.testing.assert_array_equal(take(3), take(3))
    assert not np.array_equal(take(3), take(3, seed=2))


def test_started_in_the_middle_it_goes_on_as_if_it_had_never_stopped():
    np.testing.assert_array_equal(take(7)[4:], take(3, start=4))


def test_any_number_of_processes_reads_the_same_global_batches():
    whole = take(5)
    for count in (2, 4):
        parts = [take(5, process_index=i, process_count=count) for i in range(count)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_set_smaller_than_a_batch_repeats():
    (batch,) = take(1, batch_size=64)
    assert batch.shape == (64,)
    assert set(batch) == set(range(24))
