"""Float32 gradients of every objective are as exact as PyTorch's, which make_precision_fixtures.py measured."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import precision
import pytest

from introvae_jax import objectives
from introvae_jax.nets import layers, residual
from introvae_jax.objectives.base import Batch

GOLDEN = json.loads(pathlib.Path(__file__).with_name("torch_precision.json").read_text(encoding="utf-8"))
LAYER_ERROR = 5e-6


def networks(name, dtype, norm, axis_name):
    options = {"channels": precision.CHANNELS, "z_dim": precision.Z, "sphere": name == "age", "dtype": dtype}
    options |= {"norm": norm, "axis_name": axis_name}
    return residual.Encoder(**options), residual.Decoder(**options, image_channels=3)


def parameters(name, seed):
    """Of both networks, float32: kernels as they are initialised, scales 1 and biases 0."""
    key = np.random.default_rng(seed)

    def draw(path, leaf):
        if leaf.ndim == 1:
            return np.full(leaf.shape, path[-1].key == "scale", np.float32)
        return np.float32(key.uniform(-1, 1, leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5)

    inputs = jnp.zeros((1, precision.SIZE, precision.SIZE, 3)), jnp.zeros((1, precision.Z))
    return tuple(
        jax.tree_util.tree_map_with_path(draw, jax.eval_shape(network.init, jax.random.key(0), x)["params"])
        for network, x in zip(networks(name, jnp.float32, "batch", None), inputs, strict=True)
    )


def make_gradients(name, dtype, norm="batch", axis_name=None):
    """A function (parameters of both networks, batch) -> the gradients of both losses at that point."""
    encoder, decoder = networks(name, dtype, norm, axis_name)
    objective = objectives.build(name, precision.SETTINGS)
    over_devices = (lambda x: jax.lax.pmean(x, axis_name)) if axis_name else lambda x: x

    def gradients(both, batch):
        encode = lambda params: lambda x: encoder.apply({"params": params}, x)  # noqa: E731
        decode = lambda params: lambda z: decoder.apply({"params": params}, z)  # noqa: E731
        mean = lambda values: over_devices(jnp.mean(values, axis=0))  # noqa: E731
        of_e = lambda params: objective.encoder_loss(encode(params), decode(both[1]), batch, mean)  # noqa: E731
        (_, (z, _)), grads_e = jax.value_and_grad(of_e, has_aux=True)(both[0])
        of_d = lambda params: objective.decoder_loss(encode(both[0]), decode(params), batch, z, mean)  # noqa: E731
        grads_d, _ = jax.grad(of_d, has_aux=True)(both[1])
        return over_devices((grads_e, grads_d))

    return gradients


def cases(name):
    for seed in precision.SEEDS:
        images, noise = precision.draw(seed)
        yield parameters(name, seed), Batch(images, *noise)


def exact_gradients(name, monkeypatch, norm="batch"):
    """In float64, where the package says float32 too."""
    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)
        gradients = jax.jit(make_gradients(name, jnp.float64, norm))
        return [jax.device_get(gradients(*jax.tree.map(np.float64, case))) for case in cases(name)]


def median_errors(found, exact):
    rows = [
        [precision.relative_error(*map(jax.tree.leaves, pair)) for pair in zip(ours, truth, strict=True)]
        for ours, truth in zip(found, exact, strict=True)
    ]
    return dict(zip(("encoder", "decoder"), np.median(rows, axis=0), strict=True))


@pytest.mark.parametrize("name", precision.OBJECTIVES)
def test_float32_gradients_are_as_exact_as_those_of_pytorch(name, monkeypatch):
    gradients = jax.jit(make_gradients(name, jnp.float32))
    found = [jax.device_get(gradients(*case)) for case in cases(name)]
    errors = median_errors(found, exact_gradients(name, monkeypatch))
    for network, error in errors.items():
        assert error < 10 * GOLDEN[name][network], network


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_values_and_gradients_keep_their_digits_where_the_mean_is_large(norm, monkeypatch):
    key = np.random.default_rng(0)
    x = np.float32(30 + key.standard_normal((8, 16, 16, 16)))
    weight = np.float32(key.standard_normal(x.shape))
    layer = layers.Norm(norm)
    params = {"params": {f"{norm.title()}Norm_0": {"scale": np.ones(16, np.float32), "bias": np.ones(16, np.float32)}}}

    def both(x, weight, params):
        loss = lambda x: (jnp.sum(jnp.sin(layer.apply(params, x)) * weight), layer.apply(params, x))  # noqa: E731
        return jax.grad(loss, has_aux=True)(x)

    found = jax.jit(both)(x, weight, params)
    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)
        exact = jax.device_get(jax.jit(both)(*jax.tree.map(np.float64, (x, weight, params))))
    for name, ours, truth in zip(("gradient", "value"), found, exact, strict=True):
        assert precision.relative_error([ours], [truth]) < LAYER_ERROR, name
