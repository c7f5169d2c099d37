"""What a model takes from its users, and how it says no."""

import copy
import multiprocessing
import os
import pickle

import jax
import numpy as np
from PIL import Image
import pytest
import small_model

from introvae_jax import inference, inputs, pictures
from introvae_jax.errors import UserError


@pytest.fixture(scope="module")
def grey():
    return small_model.of_images()


@pytest.fixture(scope="module")
def colour():
    return small_model.of_images(channels=3)


@pytest.fixture(scope="module")
def points():
    return small_model.of_points()


def ones(*shape, value=0.5):
    return np.full(shape, value, np.float32)


BAD_IMAGES = {
    "0 to 255": (np.linspace(0, 255, 1024).reshape(1, 32, 32, 1), r"values from 0 to 255: .* divide .* by 255"),
    "-1 to 1": (np.linspace(-1, 1, 1024).reshape(1, 32, 32, 1), r"values from -1 to 1: floats must be in \[0, 1\]"),
    "NaN": (ones(1, 32, 32, 1, value=np.nan), "images with NaN or infinite values"),
    "infinity": (ones(1, 32, 32, 1, value=np.inf), "images with NaN or infinite values"),
    "one image": (ones(32, 32, 1), r"images of shape \(32, 32, 1\): this model takes \(N, 32, 32, 1\)"),
    "another size": (ones(2, 16, 16, 1), r"images of shape \(2, 16, 16, 1\): this model takes"),
    "none": (ones(0, 32, 32, 1), "no images"),
    "whole numbers": (np.zeros((1, 32, 32, 1), np.int64), "images of type int64"),
    "words": ([["a"]], "must be real numbers"),
    "complex": (1j * ones(1, 32, 32, 1), "must be real numbers"),
    "ragged": ([[1.0, 2.0], [1.0]], "not an array of one shape"),
    "a mixture": ([Image.new("L", (32, 32)), ones(32, 32)], "a list of Pillow images contains a ndarray"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
@pytest.mark.parametrize("method", ["encode", "reconstruct"])
def test_images_that_cannot_be_are_refused(grey, case, method):
    images, said = BAD_IMAGES[case]
    with pytest.raises(ValueError, match=said) as error:
        getattr(grey, method)(images)
    assert isinstance(error.value, UserError)


def test_a_rounding_error_beyond_the_range_is_none(grey):
    just = np.float32([0, 1 + 1e-6] * 512).reshape(1, 32, 32, 1)
    np.testing.assert_allclose(grey.encode(just)[0], grey.encode(np.clip(just, 0, 1))[0], atol=1e-4)


def test_lists_and_pillow_images_are_taken_as_arrays_are(grey, colour):
    array = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    mu, _ = grey.encode(array)
    np.testing.assert_array_equal(grey.encode([Image.fromarray(each[..., 0]) for each in array])[0], mu)
    np.testing.assert_array_equal(grey.encode(Image.fromarray(array[1, ..., 0]))[0], mu[1:])
    np.testing.assert_array_equal(grey.encode(list(array))[0], mu)
    np.testing.assert_allclose(grey.encode((array / 255).tolist())[0], mu, atol=1e-5)
    np.testing.assert_array_equal(colour.encode(Image.fromarray(array[0, ..., 0])),
                                  colour.encode(np.repeat(array[:1], 3, axis=-1)))  # fmt: skip


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_pillow_images_of_any_mode_and_size_become_the_model_s(colour, mode):
    assert colour.encode(Image.new(mode, (50, 40)))[0].shape == (1, 5)


def test_pillow_images_are_cropped_and_resized_as_training_images_are(colour):
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the centred square
    np.testing.assert_array_equal(
        colour.encode(Image.fromarray(wide))[0], colour.encode(np.full((1, 32, 32, 3), 200, np.uint8))[0]
    )


def test_points_may_be_any_finite_numbers(points):
    mu, _ = points.encode([[-300, 4], [0, 2.5]])
    np.testing.assert_allclose(mu, points.encode(np.float64([[-300, 4], [0, 2.5]]))[0])
    with pytest.raises(ValueError, match="points with NaN or infinite values"):
        points.encode([[0.0, np.inf]])
    with pytest.raises(ValueError, match=r"points of shape \(3,\): this model takes \(N, 2\)"):
        points.encode([0, 1, 2])


@pytest.mark.parametrize(
    ("z", "said"),
    [(np.zeros(5), r"latents of shape \(5,\): this model takes \(N, 5\)"), (np.zeros((2, 6)), r"\(2, 6\)"),
     (np.full((1, 5), np.nan), "NaN or infinite"), (np.full((1, 5), 1e300), "NaN or infinite"),
     (np.zeros((0, 5)), "no latents"), ("abc", "must be real numbers")],
)  # fmt: skip
def test_latents_that_cannot_be_are_refused(grey, z, said):
    with pytest.raises(ValueError, match=said):
        grey.decode(z)


@pytest.mark.parametrize("num", [2.5, 0, -1, "3", None, np.float64(2)])
def test_a_number_of_images_is_a_whole_number_above_0(grey, num):
    with pytest.raises(ValueError, match=r"num = .*: must be a whole number, 1 or more"):
        grey.sample(num)


@pytest.mark.parametrize("seed", [0.5, 2**32, -1, 2**70, "1", None, 2**32 - 1])
def test_seeds_are_whole_numbers_below_2_to_the_32(grey, seed):
    with pytest.raises(ValueError, match=r"must be at least 0 and below 2\*\*32"):
        grey.sample(2, seed=seed)
    if seed != 2**32 - 1:
        with pytest.raises(ValueError, match=r"must be at least 0 and below 2\*\*32"):
            grey.latents([3, seed])


def test_seeds_come_in_sequences(grey):
    with pytest.raises(ValueError, match="must be a sequence"):
        grey.latents(5)
    with pytest.raises(ValueError, match="no seeds"):
        grey.latents([])
    np.testing.assert_array_equal(grey.latents(np.uint8([3, 4])), grey.latents(range(3, 5)))


@pytest.mark.parametrize("batch_size", [0, -4, 2.5, "8"])
def test_a_batch_size_is_a_whole_number_above_0(grey, batch_size, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size = .*: must be a whole number, 1 or more"):
        small_model.of_images(batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
def test_latents_of_a_seed_never_change(batch_size):
    expected = [jax.random.normal(jax.random.key(seed), (5,)) for seed in range(20, 31)]
    np.testing.assert_array_equal(small_model.of_images(batch_size).latents(range(20, 31)), expected)


def test_one_program_draws_any_number_of_latents(grey):
    grey.sample(3)
    programs = inference.normal._cache_size()
    for num in range(1, 12):
        grey.sample(num)
    assert inference.normal._cache_size() == programs


def test_a_model_is_shown_in_a_line(grey):
    assert repr(grey) == "Model(32x32x1, z_dim=5, step=7, weights='ema')"


def test_models_are_equal_if_they_give_the_same(grey, colour):
    assert grey == small_model.of_images(batch_size=2)
    assert grey != small_model.of_images(seed=1)
    assert grey != colour
    assert grey != 3


def test_a_model_can_be_pickled_and_copied(grey):
    for other in (pickle.loads(pickle.dumps(grey)), copy.deepcopy(grey)):
        assert other == grey
        assert other.batch_size == 4
        np.testing.assert_array_equal(other.sample(3), grey.sample(3))


def _use_in_fork(trained, out):
    try:
        trained.sample(1)
    except UserError as error:
        out.send(str(error))
        os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_model_in_a_fork_raises_an_error_where_it_would_hang(grey):
    grey.sample(1)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_use_in_fork, args=(grey, there))
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        assert "forked process" in here.recv()
    finally:
        child.kill()
        child.join()


def test_floats_of_samples_are_in_the_range(grey):
    assert 0 <= grey.sample(3).min() <= grey.sample(3).max() <= 1
    assert pictures.to_uint8(grey.sample(1)).dtype == np.uint8
    assert inputs.whole_number("n", np.int64(4)) == 4
