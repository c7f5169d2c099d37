"""Inception-v3 with random weights against what pytorch-fid and torch-fidelity make of the same weights and images."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights

from introvae_jax.features import inception, resize
from introvae_jax.metrics import frechet

GOLDEN = pathlib.Path(__file__).with_name("golden_inception.npz")
look = jax.jit(inception.features, static_argnames="mode")
prepare = jax.jit(inception.prepare, static_argnames="mode")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def variables():
    return jax.device_put(inception.from_torch(random_weights.state()))


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("mode", inception.MODES)
def test_features_are_those_of_the_reference_tools(mode, variables, golden):
    seen = [prepare(random_weights.images(*size), mode) for size in random_weights.SIZES]
    found = jax.jit(inception.InceptionV3().apply)(variables, jnp.concatenate(seen))
    assert (found.shape, found.dtype) == ((14, inception.DIM), jnp.float32)
    pairs = np.split(np.asarray(found), len(random_weights.SIZES))
    for (height, width), pair in zip(random_weights.SIZES, pairs, strict=True):
        expected = golden[f"features_{mode}_{height}x{width}"]
        assert max(map(error, pair, expected)) < 2e-6, (height, width)
        np.testing.assert_allclose(pair, expected, rtol=1e-5, atol=1e-4)  # features are around 3


@pytest.mark.parametrize("mode", inception.MODES)
@pytest.mark.parametrize("size", random_weights.SIZES)
def test_images_are_prepared_as_by_the_reference_tools(mode, size, golden):
    found = prepare(random_weights.images(*size), mode)
    assert (found.shape, found.dtype) == ((2, 299, 299, 3), jnp.float32)
    expected = golden["prepared_{}_{}x{}".format(mode, *size)]
    np.testing.assert_allclose(found[:, ::23, ::23], expected, atol=2e-6)


def test_the_distance_between_two_sets_of_images(variables, golden):
    moments = []
    for images in random_weights.image_sets():
        moments.append(frechet.Moments())
        for batch in np.split(images, 3):
            moments[-1].add(np.asarray(look(variables, batch, "pytorch"))[:, golden["image_columns"]])
    assert frechet.distance(*moments) == pytest.approx(golden["image_fid_pytorch_fid"], rel=1e-5)


def test_the_two_modes_are_not_one(golden):
    one, other = (golden[f"features_{mode}_32x32"] for mode in inception.MODES)
    assert error(one, other) > 0.01


def test_floats_count_from_0_to_255_as_bytes_do():
    images = random_weights.images(48, 80)
    for mode in inception.MODES:
        np.testing.assert_array_equal(prepare(images, mode), prepare(np.float32(images), mode))
    assert (float(prepare(images, "pytorch").min()), float(prepare(images, "pytorch").max())) == (-1, 1)


@pytest.mark.parametrize("align", ["centres", "corners"])
@pytest.mark.parametrize("before", [1, 2, 17, 299, 1024])
def test_rows_of_the_resize_average_neighbours(before, align):
    matrix = resize.weights(before, 299, align)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    assert matrix.min() >= 0 and (matrix > 0).sum(axis=1).max() <= 2
    if before == 299:
        np.testing.assert_array_equal(matrix, np.eye(299))


def test_what_is_not_known_is_named():
    with pytest.raises(ValueError, match="mode='bicubic': must be one of pytorch, tensorflow"):
        inception.prepare(jnp.zeros((1, 8, 8, 3)), "bicubic")
    with pytest.raises(ValueError, match="align='edges'"):
        resize.weights(8, 299, "edges")


def test_every_entry_of_the_file_but_the_classifier_and_the_counters_is_used():
    state = random_weights.state()
    assert len(state) == 566
    used = {name for name in state if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    params = inception.from_torch({name: state[name] for name in used})["params"]
    assert len(params) * 5 == len(used)
    assert sum(layer["kernel"].size for layer in params.values()) == sum(
        state[name].size for name in used if name.endswith("conv.weight")
    )


def test_an_entry_that_is_missing_or_has_another_shape_is_named():
    state = random_weights.state()
    name = "Mixed_6c.branch7x7dbl_4.bn.running_var"
    with pytest.raises(ValueError, match=rf"{name} is missing"):
        inception.from_torch({key: value for key, value in state.items() if key != name})
    name = "Mixed_5b.branch1x1.conv.weight"
    with pytest.raises(ValueError, match=rf"{name} has shape \(64, 192\) where \(64, 192, 1, 1\) is needed"):
        inception.from_torch(state | {name: state[name][:, :, 0, 0]})
