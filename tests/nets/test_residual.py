"""The networks against their published sizes and against a plain numpy forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from introvae_jax.nets import layers, residual
from introvae_jax.nets.residual import Decoder, Encoder

CHANNELS_256 = (32, 64, 128, 256, 512, 512)
CHANNELS_1024 = (16, 32, 64, 128, 256, 512, 512, 512)
SMALL = {"channels": (4, 8), "z_dim": 3}


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("size", "channels", "encoder_count", "decoder_count"),
    [(256, CHANNELS_256, 22_711_456, 16_190_819), (1024, CHANNELS_1024, 27_445_328, 20_903_859)],
)
def test_parameter_counts_are_those_of_the_released_model(size, channels, encoder_count, decoder_count):
    key = jax.random.key(0)
    encoder = jax.eval_shape(Encoder(channels, 512).init, key, jnp.zeros((1, size, size, 3)))
    decoder = jax.eval_shape(Decoder(channels, 512).init, key, jnp.zeros((1, 512)))
    assert (count(encoder), count(decoder)) == (encoder_count, decoder_count)


def test_parameter_counts_with_the_expansions_that_some_pythons_added():
    key, options = jax.random.key(0), {"channels": CHANNELS_256, "z_dim": 512, "expand_equal": True}
    encoder = jax.eval_shape(Encoder(**options).init, key, jnp.zeros((1, 256, 256, 3)))
    decoder = jax.eval_shape(Decoder(**options).init, key, jnp.zeros((1, 512)))
    assert (count(encoder), count(decoder)) == (22_973_600, 16_452_963)


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_every_size_in_and_out(size, image_channels):
    channels = (8,) * int(np.log2(size / 4))
    x, z = jnp.zeros((2, size, size, image_channels)), jnp.zeros((2, 5))
    mu, logvar = jax.eval_shape(lambda x: Encoder(channels, 5).init_with_output(jax.random.key(0), x)[0], x)
    decoder = Decoder(channels, 5, image_channels=image_channels)
    out = jax.eval_shape(lambda z: decoder.init_with_output(jax.random.key(0), z)[0], z)
    assert mu.shape == logvar.shape == (2, 5)
    assert out.shape == x.shape


def numpy_conv(x, kernel):
    size = kernel.shape[0]
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            out += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
    return out


def numpy_norm(x, p):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    p = p["BatchNorm_0"]
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]


def numpy_leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def numpy_block(x, p, norm_of="sum"):
    identity = numpy_conv(x, p["expand"]["kernel"]) if "expand" in p else x
    y = numpy_leaky(numpy_norm(numpy_conv(x, p["conv1"]["kernel"]), p["norm1"]))
    y = numpy_conv(y, p["conv2"]["kernel"])
    normed = numpy_norm(y, p["norm2"]) + identity if norm_of == "branch" else numpy_norm(y + identity, p["norm2"])
    return numpy_leaky(normed)


def numpy_pool(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def perturbed(params, seed):
    """Scales and biases away from 1 and 0, so that a forgotten one shows."""
    key = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float64(leaf) + 0.1 * key.standard_normal(leaf.shape), params)


def test_encoder_equals_a_numpy_forward_pass():
    x = np.random.default_rng(0).random((3, 16, 16, 1))
    encoder = Encoder(**SMALL)
    p = perturbed(encoder.init(jax.random.key(0), jnp.asarray(x, jnp.float32))["params"], 1)
    h = numpy_pool(numpy_leaky(numpy_norm(numpy_conv(x, p["stem"]["kernel"]), p["stem_norm"])))
    h = numpy_block(numpy_pool(numpy_block(h, p["block_8"])), p["block_4"])
    out = h.reshape(3, -1) @ p["moments"]["kernel"] + p["moments"]["bias"]
    mu, logvar = encoder.apply({"params": p}, x.astype(np.float32))
    np.testing.assert_allclose(np.concatenate([mu, logvar], 1), out, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("block_norm", residual.BLOCK_NORMS)
def test_decoder_equals_a_numpy_forward_pass(block_norm):
    z = np.random.default_rng(0).standard_normal((3, 3))
    decoder = Decoder(**SMALL, image_channels=3, block_norm=block_norm)
    p = perturbed(decoder.init(jax.random.key(0), jnp.asarray(z, jnp.float32))["params"], 1)
    h = np.maximum(z @ p["project"]["kernel"] + p["project"]["bias"], 0).reshape(3, 4, 4, 8)
    for name in ("block_4", "block_8"):
        h = numpy_block(h, p[name], block_norm).repeat(2, 1).repeat(2, 2)
    h = numpy_block(h, p["block_16"], block_norm)
    out = numpy_conv(h, p["predict"]["kernel"]) + p["predict"]["bias"]
    np.testing.assert_allclose(decoder.apply({"params": p}, z.astype(np.float32)), out, rtol=2e-4, atol=2e-4)


def test_group_norm_equals_its_definition():
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 16)).astype(np.float32)
    out = layers.GroupNorm().apply({"params": {"scale": np.full(16, 2.0), "bias": np.ones(16)}}, x)
    groups = x.reshape(2, 16, 2, 8)
    normed = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(out, 2 * normed.reshape(x.shape) + 1, rtol=1e-4, atol=1e-4)


def test_stored_statistics_make_images_independent_of_each_other():
    decoder = Decoder(**SMALL, image_channels=1)
    z = jax.random.normal(jax.random.key(1), (4, 3))
    variables = decoder.init(jax.random.key(0), z)
    together = decoder.apply(variables, z, use_running_average=True)
    alone = decoder.apply(variables, z[:1], use_running_average=True)
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)
    np.testing.assert_allclose(together, decoder.apply(variables, z), atol=1e-5)  # moments of this very batch


@pytest.mark.parametrize("norm", layers.NORMS)
def test_remat_changes_nothing_but_memory(norm):
    x = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1))
    plain, remat = (Encoder((8, 8), 3, norm=norm, remat=flag) for flag in (False, True))
    params = plain.init(jax.random.key(0), x)["params"]
    loss = lambda net: jax.grad(lambda p: sum(jnp.sum(v**2) for v in net.apply({"params": p}, x)))(params)  # noqa: E731
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), loss(plain), loss(remat))


def test_bfloat16_computes_coarsely_and_returns_float32():
    z = jax.random.normal(jax.random.key(1), (8, 3))
    variables = Decoder(**SMALL).init(jax.random.key(0), z)
    coarse = Decoder(**SMALL, dtype=jnp.bfloat16).apply(variables, z)
    fine = Decoder(**SMALL).apply(variables, z)
    assert coarse.dtype == jnp.float32
    assert 0 < float(jnp.max(jnp.abs(coarse - fine))) < 0.1 * float(jnp.max(jnp.abs(fine)))


def test_batch_norm_takes_its_moments_over_all_devices():
    x = jax.random.uniform(jax.random.key(1), (8, 16, 16, 1))
    encoder = Encoder(**SMALL)
    variables = encoder.init(jax.random.key(0), x)
    whole = encoder.apply({"params": variables["params"]}, x)
    parted = jax.pmap(encoder.clone(axis_name="d").apply, axis_name="d", in_axes=(None, 0))(
        {"params": variables["params"]}, x.reshape(4, 2, 16, 16, 1)
    )
    for a, b in zip(whole, parted, strict=True):
        np.testing.assert_allclose(a, b.reshape(8, -1), rtol=1e-4, atol=1e-5)


def test_upsample_repeats_and_pool_averages():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(layers.upsample(x), np.repeat(np.repeat(x, 2, 1), 2, 2))
    np.testing.assert_array_equal(layers.average_pool(layers.upsample(x)), x)


def test_blocks_expand_only_where_channels_differ():
    params = jax.eval_shape(residual.Encoder((4, 4, 8), 3).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert [name for name, p in sorted(params.items()) if "expand" in p] == ["block_8"]
