"""IntroVAE's two losses on networks whose KL terms are known numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from introvae_jax import objectives
from introvae_jax.objectives import weighting
from introvae_jax.objectives.base import Batch

SETTINGS = {"alpha": 0.25, "alpha_d": 0.5, "beta": 3.0, "margin": 10.0, "hinge": "batch", "beta_kl": 1.0}

# An image is a single pixel v; its mu is (v, v), so that KL(E(v)) = v^2. The decoder shows the first latent.
X, ZP = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 1.0])
Z = X + 0.1  # with eps = 0.1 and unit variance


def encode(x):
    v = x.reshape(-1, 1)
    mu = jnp.concatenate([v, v], axis=1)
    return mu, jnp.zeros_like(mu)


def decode(z):
    return z[:, :1].reshape(-1, 1, 1, 1)


def batch():
    x, zp = jnp.asarray(X, jnp.float32).reshape(-1, 1, 1, 1), jnp.asarray(np.stack([ZP, ZP], 1), jnp.float32)
    eps, unused = jnp.full((3, 2), 0.1), jnp.full((3, 2), jnp.nan)
    return Batch(x, eps=eps, zp=zp, eps_rec=unused, eps_fake=unused)


def losses(name, **changes):
    objective = objectives.build(name, SETTINGS | changes)
    loss_e, (z, terms) = objective.encoder_loss(encode, decode, batch(), jnp.mean)
    loss_d, _ = objective.decoder_loss(encode, decode, batch(), z, jnp.mean)
    return float(loss_e), float(loss_d), terms


AE = 0.5 * 0.1**2
KL_REAL, KL_REC, KL_FAKE = (X**2).mean(), (Z**2).mean(), (ZP**2).mean()


@pytest.mark.parametrize("hinge", ["batch", "sample"])
def test_losses_equal_the_equations(hinge):
    loss_e, loss_d, terms = losses("introvae", hinge=hinge)
    relu = lambda v: np.maximum(10.0 - v, 0)  # noqa: E731
    if hinge == "batch":
        hinges = relu(KL_REC) + relu(KL_FAKE)
    else:  # one fake has a KL of 16, beyond the margin: its hinge is off
        hinges = relu(Z**2).mean() + relu(ZP**2).mean()
        np.testing.assert_allclose(terms["hinge_fake_active"], 2 / 3, rtol=1e-5)
    np.testing.assert_allclose(loss_e, KL_REAL + 0.25 * hinges + 3.0 * AE, rtol=1e-5)
    np.testing.assert_allclose(loss_d, 0.5 * (KL_REC + KL_FAKE) + 3.0 * AE, rtol=1e-5)


def test_terms_are_named_and_measured():
    _, _, terms = losses("introvae")
    expected = {"kl_real": KL_REAL, "kl_rec": KL_REC, "kl_fake": KL_FAKE, "loss_rec": AE,
                "kl_gap": (KL_REC + KL_FAKE) / 2 - KL_REAL, "hinge_rec_active": 1, "hinge_fake_active": 1}  # fmt: skip
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("hinge", ["batch", "sample"])
def test_beyond_the_margin_the_hinge_is_silent(hinge):
    loss_e, _, terms = losses("introvae", margin=0.5, hinge=hinge)
    np.testing.assert_allclose(loss_e, KL_REAL + 3.0 * AE, rtol=1e-5)
    assert terms["hinge_rec_active"] == terms["hinge_fake_active"] == 0


@pytest.mark.parametrize("hinge", ["batch", "sample"])
def test_a_relative_margin_lies_above_the_mean_kl_of_the_real_images(hinge):
    """Whatever the number in margin; one fake with a KL of 16 lies beyond it."""
    loss_e, loss_d, terms = losses("introvae", hinge=hinge, margin=99.0, margin_offset=4.0)
    margin = KL_REAL + 4.0
    np.testing.assert_allclose(terms["margin"], margin, rtol=1e-5)
    generated = [Z**2, ZP**2] if hinge == "sample" else [KL_REC, KL_FAKE]
    hinges = sum(np.maximum(margin - kl, 0).mean() for kl in generated)
    np.testing.assert_allclose(loss_e, KL_REAL + 0.25 * hinges + 3.0 * AE, rtol=1e-5)
    np.testing.assert_allclose(loss_d, 0.5 * (KL_REC + KL_FAKE) + 3.0 * AE, rtol=1e-5)
    np.testing.assert_allclose(terms["hinge_fake_active"], 2 / 3 if hinge == "sample" else 1, rtol=1e-5)


def test_the_automatic_beta_by_hand():
    loss_e, loss_d, terms = losses("introvae", auto_beta=2.0)
    error = AE + 0.5 / 12 / 255**2  # the second is that of rounding to 8 bits
    hinges = 20.0 - KL_REC - KL_FAKE
    np.testing.assert_allclose(terms["beta"], 2.0 / error, rtol=1e-4)
    np.testing.assert_allclose(loss_e, KL_REAL + 0.25 * hinges + 2.0 * np.log(error), rtol=1e-4)
    np.testing.assert_allclose(loss_d, 0.5 * (KL_REC + KL_FAKE) + 2.0 * np.log(error), rtol=1e-4)


def test_the_automatic_beta_of_a_perfect_reconstruction_is_finite():
    error = jnp.zeros(())
    weighted = lambda error: weighting.reconstruction_term(  # noqa: E731
        error, jnp.zeros((3, 8, 8, 1)), 3.0, 0.5
    )
    slope, terms = jax.grad(weighted, has_aux=True)(error)
    np.testing.assert_allclose([slope, terms["beta"]], 0.5 * 8 * 24 * 255**2 / 64, rtol=1e-5)


def test_the_margin_is_compared_with_one_image_not_with_the_sum_over_the_batch():
    # Summed over the batch the KL of the fakes is 21, of one image 7: between them the hinge must be on.
    assert losses("introvae", margin=15.0)[2]["hinge_fake_active"] == 1


def test_without_adversarial_weights_it_is_a_vae():
    vae = losses("vae")
    np.testing.assert_allclose(losses("introvae", alpha=0.0, alpha_d=0.0)[:2], vae[:2], rtol=1e-5)
    np.testing.assert_allclose(vae[0], KL_REAL + 3.0 * AE, rtol=1e-5)
    np.testing.assert_allclose(vae[1], 3.0 * AE, rtol=1e-5)
