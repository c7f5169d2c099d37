"""Every parameter's gradient, through the package's own step, against the float64 reference; and what moves what."""

import functools

import jax
import numpy as np
import pytest
import reference
from test_soft_introvae import AE, KL_FAKE, KL_REAL, KL_REC, close, hand_losses

from introvae_jax.training import step as step_lib

VAE = {"beta": 3.0, "beta_kl": 2.0}
INTROVAE = {"alpha": 0.3, "alpha_d": 0.2, "beta": 0.5, "margin": 3.0, "hinge": "batch"}
SOFT = {"beta": 0.5, "beta_kl": 0.7, "beta_neg": 0.9, "gamma": 0.0}
AGE = {"match_x": 0.5, "match_z": 0.8}

# Objective, settings, updates of the decoder.
CASES = {
    "vae": ("vae", VAE, 1),
    "introvae": ("introvae", INTROVAE, 1),
    "introvae, hinge of each image": ("introvae", INTROVAE | {"hinge": "sample", "margin": 0.6}, 1),
    "vae, automatic beta": ("vae", VAE | {"auto_beta": 0.4}, 1),
    "introvae, margin above kl_real": ("introvae", INTROVAE | {"margin": 0.0, "margin_offset": 2.0}, 1),
    "introvae, the same of each image": (
        "introvae",
        INTROVAE | {"hinge": "sample", "margin": 0.0, "margin_offset": 0.1, "alpha": 3.0},
        1,
    ),
    "introvae, both automatic": ("introvae", INTROVAE | {"margin_offset": 2.0, "auto_beta": 0.4}, 2),
    "introvae, generated images alone": ("introvae", INTROVAE | {"alpha": 3.0, "beta": 0.0}, 2),
    "soft_introvae": ("soft_introvae", SOFT, 1),
    "soft_introvae, large gamma": ("soft_introvae", SOFT | {"gamma": 8.0}, 2),
    "age": ("age", AGE, 2),
}


@functools.cache
def cached_step(name, settings, order, updates):
    return reference.one_step(name, dict(settings), order, updates)


def one_step(name, settings, order, updates):
    return cached_step(name, tuple(settings.items()), order, updates)


@pytest.mark.parametrize("order", step_lib.UPDATE_ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_a_step_follows_the_reference(case, order):
    name, settings, updates = CASES[case]
    step = one_step(name, settings, order, updates)
    encoder_loss, decoder_loss = reference.LOSSES[name]
    (e, d), b = step.before, step.batch
    by_hand = reference.gradient(lambda moved: encoder_loss(moved, (e, d), settings, b), e)
    compare(by_hand, e, step.after[0])
    np.testing.assert_allclose(step.terms["loss_encoder"], encoder_loss(e, (e, d), settings, b), rtol=1e-4)

    judge = step.after[0] if order == "alternating" else e
    z, moved = None if name == "age" else reference.latents(e, b.x, b.eps), d
    for zp in step.priors:  # each further update starts where the last one ended, on new samples
        frozen, b = (judge, moved), b.replace(zp=zp)
        loss = lambda d: decoder_loss(d, z, frozen, settings, b)  # noqa: B023, E731
        loss_before = loss(moved)
        grads = reference.gradient(loss, moved)
        moved = jax.tree.map(lambda p, g: p - reference.RATE * g, moved, grads)
    compare(jax.tree.map(lambda p, q: (p - q) / reference.RATE, d, moved), d, step.after[1])
    np.testing.assert_allclose(step.terms["loss_decoder"], loss_before, rtol=1e-4)


@pytest.mark.parametrize(("name", "fixed"), [("vae", VAE), ("introvae", INTROVAE)])
def test_the_automatic_beta_is_logged_and_moves_both_networks_as_a_fixed_one_of_its_size(name, fixed):
    automatic = one_step(name, fixed | {"auto_beta": 0.4}, "simultaneous", 1)
    weight = 0.4 * reference.VALUES**0.5 / automatic.terms["loss_rec"]
    np.testing.assert_allclose(automatic.terms["beta"], weight, rtol=1e-4)
    same = one_step(name, fixed | {"beta": float(weight)}, "simultaneous", 1)
    for moved, expected in zip(jax.tree.leaves(automatic.after), jax.tree.leaves(same.after), strict=True):
        np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5)
    assert "beta" not in same.terms


def compare(by_hand, before, after):
    """Within 1e-4 and 2e-5, in arrays that all have gradients a thousand times as large."""
    for layer, arrays in by_hand.items():
        for name, grad in arrays.items():
            moved = (before[layer][name] - after[layer][name]) / reference.RATE
            assert np.abs(grad).max() > 0.02
            np.testing.assert_allclose(moved, grad, rtol=1e-4, atol=2e-5, err_msg=f"{layer} {name}")


@pytest.mark.parametrize("case", ["introvae, hinge of each image", "introvae, the same of each image"])
def test_hinges_are_partly_active_where_they_are_of_each_image(case):
    name, settings, updates = CASES[case]
    terms = one_step(name, settings, "simultaneous", updates).terms
    assert 0 < terms["hinge_rec_active"] < 1 or 0 < terms["hinge_fake_active"] < 1


def test_vae_by_hand():
    loss_e, loss_d, terms = hand_losses("vae", VAE)
    close(terms, {"kl_real": 5 - np.log(2) / 2, "loss_rec": 0.625})
    np.testing.assert_allclose(loss_e, 2 * (5 - np.log(2) / 2) + 3 * 0.625, rtol=1e-5)
    np.testing.assert_allclose(loss_d, 3 * 0.625, rtol=1e-5)


@pytest.mark.parametrize("hinge", ["batch", "sample"])
def test_introvae_by_hand(hinge):
    settings = {"alpha": 0.25, "alpha_d": 0.5, "beta": 3.0, "margin": 8.0, "hinge": hinge}
    loss_e, loss_d, terms = hand_losses("introvae", settings)
    # KL of the copies: 1.375 - log(1.5) / 2 and 14.5 - log(5) / 2. The second is beyond the margin, the mean is not.
    first, both = 8 - 1.375 + np.log(1.5) / 2, 8 - 15.875 / 2 + np.log(7.5) / 4
    hinge_rec, active = (both, 1.0) if hinge == "batch" else (first / 2, 0.5)
    hinge_fake = 6.5 + np.log(2) / 4
    close(terms, {"kl_real": KL_REAL, "kl_rec": KL_REC, "kl_fake": KL_FAKE, "loss_rec": AE,
                  "kl_gap": (KL_REC + KL_FAKE) / 2 - KL_REAL,
                  "hinge_rec_active": active, "hinge_fake_active": 1.0})  # fmt: skip
    np.testing.assert_allclose(loss_e, KL_REAL + 0.25 * (hinge_rec + hinge_fake) + 3 * AE, rtol=1e-5)
    np.testing.assert_allclose(loss_d, 0.5 * (KL_REC + KL_FAKE) + 3 * AE, rtol=1e-5)


# A setting that only one network's loss may read: changed, the other network must move as before, to the bit.
READ_BY_ONE = {
    "alpha": ("introvae", {"alpha": 2.0}, 0),
    "gamma": ("soft_introvae, large gamma", {"gamma": 1.0}, 1),
    "beta_neg": ("soft_introvae, large gamma", {"beta_neg": 2.0}, 0),
    "match_z": ("age", {"match_z": 2.0}, 1),
}


@pytest.mark.parametrize("case", READ_BY_ONE)
def test_a_setting_of_one_loss_moves_one_network(case):
    base, change, mover = READ_BY_ONE[case]
    name, settings, updates = CASES[base]
    steps = [one_step(name, s, "simultaneous", updates) for s in (settings, settings | change)]
    same = [all(map(np.array_equal, *(jax.tree.leaves(step.after[i]) for step in steps))) for i in (0, 1)]
    assert same[1 - mover] and not same[mover]
