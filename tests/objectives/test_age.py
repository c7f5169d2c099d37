"""AGE by hand, what its generated images may move, and moments over all devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from introvae_jax import objectives
from introvae_jax.objectives import age
from introvae_jax.objectives.base import Batch

SETTINGS = {"match_x": 10.0, "match_z": 5.0}

# Images are two pixels; the encoder projects them to the unit circle, the decoder projects its latents, mirrors the
# first coordinate and shows twice the result.


def on_circle(v):
    return v / jnp.linalg.norm(v, axis=1, keepdims=True)


def encode(x):
    mu = on_circle(x.reshape(len(x), 2))
    return mu, jnp.full_like(mu, -jnp.inf)


def decode(z):
    return (2 * on_circle(z) * jnp.array([[-1.0, 1.0]])).reshape(len(z), 1, 2, 1)


def mean(values):
    return jnp.mean(values, axis=0)


def hand_batch():
    """Real: (1, 0) and (0, 1), twice each. Latents of the prior: 3 (+-0.6, +-0.8)."""
    unused = jnp.full((4, 2), jnp.nan)  # AGE is deterministic but for zp
    real = jnp.array([[1.0, 0.0], [0.0, 1.0]] * 2).reshape(4, 1, 2, 1)
    prior = 3 * jnp.array([[0.6, 0.8], [0.6, -0.8], [-0.6, 0.8], [-0.6, -0.8]])
    return Batch(x=real, eps=unused, zp=prior, eps_rec=unused, eps_fake=unused)


def test_losses_and_terms_by_hand():
    objective = objectives.build("age", SETTINGS)
    loss_e, (z, terms) = objective.encoder_loss(encode, decode, hand_batch(), mean)
    loss_d, more = objective.decoder_loss(encode, decode, hand_batch(), z, mean)
    # Real: mean and standard deviation 1/2 in both dimensions, (1/4 + 1/4) / 2 - log(1/2) - 1/2.
    kl_real = np.log(2) - 0.25
    # Sampled, a mirror image of the prior's points: means 0, deviations 0.6 and 0.8. Half of
    # (0.36 / 2 - log 0.6 - 1/2) + (0.64 / 2 - log 0.8 - 1/2).
    kl_fake = -0.25 - np.log(0.48) / 2
    # Copies (-2, 0) and (0, 2): a pixel is off by 3 or by 1, the other right. The cosine is 0.64 - 0.36 everywhere.
    expected = {"kl_real": kl_real, "kl_fake": kl_fake, "kl_gap": kl_fake - kl_real,
                "loss_x": (3 + 1) / 4, "loss_rec": (9 / 2 + 1 / 2) / 2, "loss_z": 1 - 0.28}  # fmt: skip
    terms |= more
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss_e, kl_real - kl_fake + 10 * 1.0, rtol=1e-5)
    np.testing.assert_allclose(loss_d, kl_fake + 5 * 0.72, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_the_kl_of_the_batch_is_the_integral_over_its_gaussian(spread):
    """E log(q / p) under q = N(m, s^2), by summing over a fine grid; zero for the prior's own moments."""
    latents = spread * jnp.array([[1.0], [-1.0]]) + 0.25  # mean 0.25, biased standard deviation `spread`
    q, dx = lambda v: np.exp(-0.5 * ((v - 0.25) / spread) ** 2) / np.sqrt(2 * np.pi) / spread, 1e-3
    grid = np.arange(-30, 30, dx)
    log_q = -0.5 * ((grid - 0.25) / spread) ** 2 - np.log(spread)
    integral = (q(grid) * (log_q + grid**2 / 2)).sum() * dx
    np.testing.assert_allclose(age._kl_of_batch(latents, mean), integral, rtol=1e-4)


def test_generated_images_are_constants_of_the_encoders_loss():
    """And real ones do not reach the decoder's loss at all."""
    objective = objectives.build("age", SETTINGS)
    shown = lambda gain: lambda z: decode(z) * gain + gain**2  # noqa: E731

    def encoder_loss(gain, match_x):
        objective = objectives.build("age", SETTINGS | {"match_x": match_x})
        return objective.encoder_loss(encode, shown(gain), hand_batch(), mean)[0]

    assert jax.grad(encoder_loss)(1.0, 0.0) == 0
    assert jax.grad(encoder_loss)(1.0, 1.0) != 0
    unseen = hand_batch().replace(x=jnp.full((4, 1, 2, 1), jnp.nan))
    z = jnp.full((4, 2), jnp.nan)
    losses = [objective.decoder_loss(encode, decode, batch, z, mean)[0] for batch in (hand_batch(), unseen)]
    assert losses[0] == losses[1]


def test_one_and_four_devices_train_the_same_model():
    one, four = (reference.train("age", SETTINGS, devices, 3e-3) for devices in (1, 4))
    reference.assert_same_training(one, four)
    assert one[0][0]["loss_x"] != pytest.approx(one[0][-1]["loss_x"], rel=1e-2)  # it does move


def parted(batch, z, count):
    """Both losses and the gradient of the encoder's, on `count` simulated devices, averaged over them."""

    def device(part, z):
        over_all = lambda v: jax.lax.pmean(jnp.mean(v, 0), "devices")  # noqa: E731
        objective = objectives.build("age", SETTINGS)
        turned = lambda t: lambda x: encode(x + t)  # noqa: E731
        loss_e = lambda t: objective.encoder_loss(turned(t), decode, part, over_all)[0]  # noqa: E731
        losses = *jax.value_and_grad(loss_e)(0.3), objective.decoder_loss(encode, decode, part, z, over_all)[0]
        return jax.lax.pmean(jnp.stack(losses), "devices")

    split = lambda v: v.reshape(count, -1, *v.shape[1:])  # noqa: E731
    devices = jax.devices()[:count]
    return jax.pmap(device, "devices", devices=devices)(*jax.tree.map(split, (batch, z)))[0]


def test_moments_are_those_of_the_global_batch(monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    latents = lambda: jnp.asarray(draw((16, 2)), jnp.float32)  # noqa: E731
    batch = Batch(jnp.asarray(draw((16, 1, 2, 1)), jnp.float32), latents(), latents(), latents(), latents())
    whole = parted(batch, latents(), 1)
    np.testing.assert_allclose(parted(batch, latents(), 4), whole, rtol=1e-4)
    right = age._kl_of_batch
    monkeypatch.setattr(age, "_kl_of_batch", lambda latents, _: right(latents, mean))  # moments of a device's images
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(parted(batch, latents(), 4), whole, rtol=1e-4)
