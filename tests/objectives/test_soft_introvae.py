"""Soft-IntroVAE by hand, what its generated images may move, and the number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from introvae_jax import objectives
from introvae_jax.objectives.base import Batch

SETTINGS = {"beta": 0.5, "beta_kl": 0.7, "beta_neg": 0.1, "gamma": 6.0}

# Two equal pixels v (so s = 1/2) are encoded as mu = (v, 0), logvar = (0, log v), hence
# KL(v) = (v^2 + v - 1 - log v) / 2. The decoder shows z_1 + z_2 in both pixels.


def encode(x):
    v = x.mean((1, 2, 3)).reshape(-1, 1)
    return jnp.concatenate([v, 0 * v], 1), jnp.concatenate([0 * v, jnp.log(v)], 1)


def decode(z):
    return jnp.broadcast_to(z.sum(1).reshape(-1, 1, 1, 1), (len(z), 1, 2, 1))


def kl(v):
    return (v**2 + v - 1 - np.log(v)) / 2


def hand_batch():
    """Real 1 and 4, their copies 1.5 and 5 (the deviation of 4 is 2), sampled 2 and 1."""
    two = lambda a, b: jnp.array([a, b], jnp.float32)  # noqa: E731
    return Batch(
        x=jnp.broadcast_to(two([[[1]]], [[[4]]]), (2, 1, 2, 1)), zp=two([1, 1], [0.5, 0.5]),
        eps=two([0, 0.5], [0, 0.5]), eps_rec=two([1, 0], [1, 0]), eps_fake=two([0, 1], [0, 1]),
    )  # fmt: skip


def hand_losses(name, settings):
    objective = objectives.build(name, settings)
    loss_e, (z, terms) = objective.encoder_loss(encode, decode, hand_batch(), lambda v: jnp.mean(v, 0))
    loss_d, more = objective.decoder_loss(encode, decode, hand_batch(), z, lambda v: jnp.mean(v, 0))
    return loss_e, loss_d, terms | more


# Two pixels of error 0.5, and of error 1, half squared: 0.25 and 1.
AE, KL_REAL, KL_REC, KL_FAKE = 0.625, 5 - np.log(2) / 2, kl(np.array([1.5, 5])).mean(), 1.5 - np.log(2) / 4


def close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("gamma", [0.0, 6.0])
def test_losses_and_terms_by_hand(gamma):
    loss_e, loss_d, terms = hand_losses("soft_introvae", SETTINGS | {"gamma": gamma})
    # The copies of copies are 1 too large in both pixels (eps_rec), those of the samples by their deviations,
    # sqrt 2 and 1 (eps_fake): errors of 1 and 1, 2 and 1. With s = 1/2 the exponent is -(beta error + beta_neg KL).
    exp_rec = np.mean([np.exp(-0.5 - 0.1 * kl(1.5)), np.exp(-0.5 - 0.1 * kl(5.0))])
    exp_fake = np.mean([np.exp(-1.0 - 0.25 + 0.05 * np.log(2)), np.exp(-0.5 - 0.05)])
    close(terms, {"kl_real": KL_REAL, "kl_rec": KL_REC, "kl_fake": KL_FAKE, "loss_rec": AE,
                  "kl_gap": (KL_REC + KL_FAKE) / 2 - KL_REAL, "exp_elbo_rec": exp_rec,
                  "exp_elbo_fake": exp_fake})  # fmt: skip
    np.testing.assert_allclose(loss_e, 0.5 * AE + 0.7 * KL_REAL + (exp_rec + exp_fake) / 4 * 2, rtol=1e-5)
    of_generated = 0.35 * (KL_REC + KL_FAKE) + gamma / 2 * 0.5 * (1 + 1.5)
    np.testing.assert_allclose(loss_d, 0.5 * AE + of_generated, rtol=1e-5)


@functools.cache
def networks_and_batch():
    """The reference's flax networks as functions of (params, inputs), parameters for both, and a batch."""
    encoder, decoder = reference.networks(sphere=False)
    draw = np.random.default_rng(1).standard_normal
    batch = Batch(*(jnp.asarray(draw(shape), jnp.float32) for shape in [(8, *reference.SHAPE)] + [(8, 2)] * 4))
    e = encoder.init(jax.random.key(1), batch.x)["params"]
    d = decoder.init(jax.random.key(2), batch.zp)["params"]
    apply = lambda net: lambda params, x: net.apply({"params": params}, x)  # noqa: E731
    return apply(encoder), apply(decoder), e, d, batch


def mean(values):
    return jnp.mean(values, axis=0)


def test_real_images_move_the_encoder_as_in_a_vae():
    """With its own parameters for real images, the encoder's path through generated ones would show there."""
    encode, decode, e, d, batch = networks_and_batch()

    def gradient(name):
        def loss(of_real):
            by_origin = lambda x: encode(of_real if x is batch.x else e, x)  # noqa: E731
            return objectives.build(name, SETTINGS).encoder_loss(by_origin, lambda z: decode(d, z), batch, mean)[0]

        return jax.jit(jax.grad(loss))(e)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=4e-6),
                 gradient("soft_introvae"), gradient("vae"))  # fmt: skip


def test_generated_images_are_constants_of_the_encoders_loss():
    encode, decode, e, d, batch = networks_and_batch()

    def loss(d, beta):
        objective = objectives.build("soft_introvae", SETTINGS | {"beta": beta, "beta_neg": 1.0})
        return objective.encoder_loss(lambda x: encode(e, x), lambda z: decode(d, z), batch, mean)[0]

    assert not any(jnp.any(g) for g in jax.tree.leaves(jax.jit(jax.grad(loss), static_argnums=1)(d, 0.0)))
    assert any(jnp.any(g) for g in jax.tree.leaves(jax.jit(jax.grad(loss), static_argnums=1)(d, 1.0)))


def test_the_decoder_reconstructs_generated_images_from_constant_latents():
    encode, decode, e, d, batch = networks_and_batch()
    z = batch.zp + 1

    def gradient(see, **settings):
        objective = objectives.build("soft_introvae", SETTINGS | settings)
        judge = lambda x: encode(e, see(x))  # noqa: E731
        return jax.grad(lambda d: objective.decoder_loss(judge, lambda z: decode(d, z), batch, z, mean)[0])(d)

    jax.tree.map(np.testing.assert_array_equal,
                 gradient(lambda x: x, beta_kl=0.0), gradient(jax.lax.stop_gradient, beta_kl=0.0))  # fmt: skip

    # What the target's own gradient would add is not seen there: the decoder must not chase its samples.
    def by_hand(moved):
        pull = 0.0
        for latents, eps in ((z, batch.eps_rec), (batch.zp, batch.eps_fake)):
            image = decode(d, latents)
            mu, logvar = encode(e, image)
            pull += 0.5 * jnp.sum((decode(moved, mu + jnp.exp(logvar / 2) * eps) - image) ** 2) / 8
        real = 0.5 * jnp.sum((decode(moved, z) - batch.x) ** 2) / 8
        return 0.5 * (real + 3.0 * pull)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=4e-5),
                 gradient(lambda x: x, beta_kl=0.0), jax.grad(by_hand)(d))  # fmt: skip


def test_one_and_four_devices_train_the_same_model():
    settings = {"beta": 2.0, "beta_kl": 1.0, "beta_neg": 4.0, "gamma": 0.5}
    one, four = (reference.train("soft_introvae", settings, n, 1e-3, block_norm="branch") for n in (1, 4))
    reference.assert_same_training(one, four)
    assert one[0][0]["loss_rec"] != pytest.approx(one[0][-1]["loss_rec"], rel=1e-2)  # it does move
