"""Mistakes that other codes of this family were found to make: each check passes here and fails with one planted.

The checks look at which way an update moves things. Most happen in a world where that is easily seen: an image is
three pixels, the encoder's parameters are a gain for each (mu = gain * pixel, variance 1), the decoder is a matrix.
Real images light pixel 0, their reconstructions pixel 1, samples pixel 2, so each kind has a gain of its own.
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from introvae_jax import objectives
from introvae_jax.objectives import age, soft_introvae, terms
from introvae_jax.objectives.base import Batch
from introvae_jax.training import step as step_lib

REAL, REC, FAKE = range(3)
GAINS, MATRIX = jnp.ones(3), jnp.diag(jnp.ones(3)).at[REAL].set(jnp.array([0.0, 1.0, 0.0]))
SETTINGS = {
    "introvae": {"alpha": 0.25, "alpha_d": 0.25, "beta": 0.0, "margin": 10.0, "hinge": "batch"},
    "soft_introvae": {"beta": 0.0, "beta_kl": 1.0, "beta_neg": 1.0, "gamma": 0.0},
    "age": {"match_x": 0.0, "match_z": 0.0},
}
detached = jax.lax.stop_gradient  # what the checks use is not what is planted


def make_batch(real, zp, eps=0.0):
    noise = jnp.full((len(real), 3), eps)
    return Batch(jnp.asarray(real).reshape(-1, 1, 1, 3), noise, jnp.asarray(zp), noise, noise)


SIZES = jnp.array([[1.0], [2.0]])
REAL_LATENTS = SIZES * jnp.eye(3)[None, REAL]
APART = make_batch(REAL_LATENTS, SIZES * jnp.eye(3)[None, FAKE])
CLOUD = make_batch(*jax.random.normal(jax.random.key(0), (2, 16, 3)))


def encode(gains, x):
    mu = gains[None] * x.reshape(len(x), 3)
    return mu, jnp.zeros_like(mu)


def decode(matrix, z):
    return (z @ matrix).reshape(-1, 1, 1, 3)


def mean(values):
    return jnp.mean(values, axis=0)


def encoder_pull(name, batch=APART, matrix=MATRIX, gains=GAINS, encode=encode, **changes):
    """Where a small step moves the gains, and the terms."""
    objective = objectives.build(name, SETTINGS[name] | changes)

    def loss(gains):
        return objective.encoder_loss(lambda x: encode(gains, x), functools.partial(decode, matrix), batch, mean)

    grads, (_, reported) = jax.grad(loss, has_aux=True)(gains)
    return -grads, reported


def decoder_pull(name, batch=APART, z=REAL_LATENTS, matrix=MATRIX, seen=lambda x: x, **changes):
    objective = objectives.build(name, SETTINGS[name] | changes)
    judge = lambda x: encode(GAINS, seen(x))  # noqa: E731
    return -jax.grad(lambda m: objective.decoder_loss(judge, functools.partial(decode, m), batch, z, mean)[0])(matrix)


def image_kl(latents, matrix):
    return 0.5 * np.square(np.asarray(latents @ matrix)).sum(1).mean()


# What a right objective does.


def encoder_lowers_the_kl_of_real_images(name="introvae"):
    assert encoder_pull(name)[0][REAL] < -0.1


def encoder_raises_the_kl_of_generated_images(name="introvae"):
    assert all(encoder_pull(name)[0][REC:] > 0.01)


def encoder_leaves_them_alone_beyond_the_margin():
    assert all(encoder_pull("introvae", margin=0.5)[0][REC:] == 0)


def alpha_weighs_both_hinges():
    (one, _), (two, _) = (encoder_pull("introvae", alpha=alpha) for alpha in (0.25, 0.5))
    np.testing.assert_allclose(two[REC:], 2 * one[REC:], rtol=1e-5)


def twice_the_same_batch_teaches_the_same(name="introvae", batch=APART):
    """Compared with a sum over the batch, the margin would be passed by the second copy."""
    double = jax.tree.map(lambda v: jnp.concatenate([v, v]), batch)
    matrix, changes = (MATRIX, {"margin": 4.0}) if name == "introvae" else (0.5 * jnp.eye(3), {})
    once, twice = (encoder_pull(name, b, matrix, **changes)[0] for b in (batch, double))
    np.testing.assert_allclose(once, twice, rtol=1e-4, atol=1e-6)
    assert jnp.any(once != 0)


def real_images_are_not_moved_by_how_generated_ones_look(name="introvae"):
    strong, weak = ({"alpha": 2.0}, {"alpha": 0.0}) if name == "introvae" else ({"beta_neg": 2.0}, {"beta_neg": 0.0})
    assert encoder_pull(name, **strong)[0][REAL] == encoder_pull(name, **weak)[0][REAL]


def encoder_learns_to_reconstruct():
    """The decoder shows half of each latent: doubling the gain is right, though the KL is against it."""
    assert encoder_pull("introvae", matrix=0.5 * jnp.eye(3), beta=20.0, alpha=0.0)[0][REAL] > 0.1


def decoder_lowers_the_kl_of_samples(name="introvae"):
    zp = APART.zp
    moved = MATRIX + 0.1 * decoder_pull(name)
    assert image_kl(zp, moved) < image_kl(zp, MATRIX) - 0.01


def decoder_still_pulls_beyond_the_margin():
    assert np.allclose(decoder_pull("introvae", margin=0.0), decoder_pull("introvae", margin=100.0))
    decoder_lowers_the_kl_of_samples()


def decoder_solves_least_squares_in_one_step():
    """Half a squared error has curvature beta: a step of 1 / beta lands on the image, not short of or behind it."""
    one = jnp.eye(3)[None, REAL]
    moved = MATRIX + decoder_pull("introvae", make_batch(one, one), one, beta=4.0, alpha_d=0.0) / 4.0
    np.testing.assert_allclose(one @ moved, one, atol=1e-6)


def latents_that_say_nothing_cost_nothing():
    def padded(gains, x):
        return tuple(jnp.pad(v, ((0, 0), (0, 3))) for v in encode(gains, x))

    padded_matrix = jnp.pad(MATRIX, ((0, 3), (0, 0)))
    wide = jax.tree.map(lambda v: jnp.pad(v, ((0, 0), (0, 3))) if v.ndim == 2 else v, APART)
    (_, few), (_, many) = encoder_pull("introvae"), encoder_pull("introvae", wide, padded_matrix, encode=padded)
    np.testing.assert_allclose(few["kl_real"], many["kl_real"])


def a_hopeless_sample_does_not_silence_the_others():
    """exp(ELBO) of each image: where one is far off, three of four still push; not so for exp of the mean."""
    three = make_batch(jnp.eye(3)[None, REAL].repeat(4, 0), jnp.array([[0, 0, 1.0]] * 3 + [[0, 0, 30.0]]))
    four = three.replace(zp=jnp.array([[0, 0, 1.0]] * 4))
    np.testing.assert_allclose(encoder_pull("soft_introvae", three)[0][FAKE],
                               0.75 * encoder_pull("soft_introvae", four)[0][FAKE], rtol=1e-4)  # fmt: skip


def decoder_sees_the_latents_of_samples_as_constants():
    settings = {"beta": 1.0, "beta_kl": 0.0, "gamma": 5.0, "matrix": 0.5 * jnp.eye(3)}
    np.testing.assert_array_equal(decoder_pull("soft_introvae", **settings),
                                  decoder_pull("soft_introvae", seen=detached, **settings))  # fmt: skip


def the_size_of_images_does_not_matter():
    """Every value twice: the error per value, and so exp(ELBO) without its KL, is what it was."""
    twice = APART.replace(x=jnp.concatenate([APART.x, APART.x], 1))
    objective = objectives.build("soft_introvae", SETTINGS["soft_introvae"] | {"beta": 1.0, "beta_neg": 0.0})

    def exp_elbo(batch):
        rows = batch.x.shape[1]
        show = lambda z: jnp.tile(decode(0.5 * jnp.eye(3), z), (1, rows, 1, 1))  # noqa: E731
        return objective.encoder_loss(lambda x: encode(GAINS, x[:, :1]), show, batch, mean)[1][1]["exp_elbo_fake"]

    np.testing.assert_allclose(exp_elbo(APART), exp_elbo(twice), rtol=1e-5)
    assert exp_elbo(APART) < 0.95


def age_encoder_drives_the_two_apart():
    """Both kinds are too narrow: the gain of real images goes up, that of samples down."""

    def by_origin(gains, x):
        return encode(gains[0] if x is CLOUD.x else gains[1], x)

    pull, _ = encoder_pull("age", CLOUD, 0.5 * jnp.eye(3), jnp.full((2, 3), 0.5), by_origin)
    assert all(pull[0] > 0) and all(pull[1] < 0)


def age_decoder_widens_samples_that_are_too_narrow():
    assert all(jnp.diag(decoder_pull("age", CLOUD, matrix=0.2 * jnp.eye(3))) > 0.1)


def age_measures_in_standard_deviations():
    """At a deviation of 2 and mean 0 the KL is (4 - 1) / 2 - log 2."""
    np.testing.assert_allclose(age._kl_of_batch(jnp.array([[2.0], [-2.0]]), mean), 1.5 - np.log(2), rtol=1e-5)


def age_looks_at_directions():
    """Latents of the same direction are right whatever their length."""
    np.testing.assert_array_less(jnp.abs(decoder_pull("age", CLOUD, matrix=jnp.eye(3), match_z=1.0)
                                         - decoder_pull("age", CLOUD, matrix=jnp.eye(3))), 1e-5)  # fmt: skip


def decoder_is_judged_by_the_updated_encoder():
    step = reference.one_step("introvae", SETTINGS["introvae"] | {"alpha": 3.0}, "alternating")
    z, frozen = reference.latents(step.before[0], step.batch.x, step.batch.eps), (step.after[0], step.before[1])
    loss = functools.partial(reference.introvae_decoder, z=z, frozen=frozen, s=SETTINGS["introvae"], b=step.batch)
    for layer, arrays in reference.gradient(loss, step.before[1]).items():
        for name, grad in arrays.items():
            moved = (step.before[1][layer][name] - step.after[1][layer][name]) / reference.RATE
            np.testing.assert_allclose(moved, grad, rtol=1e-3, atol=1e-4)


# The mistakes.

INTRO, SOFT, AGE = objectives.IntroVAE, objectives.SoftIntroVAE, objectives.AGE


def without_gradient_of_samples(cls):
    right = cls.decoder_loss

    def wrong(self, encode, decode, batch, z, mean):
        return right(self, encode, lambda v: detached(decode(v)) if v is batch.zp else decode(v), batch, z, mean)

    return cls, "decoder_loss", wrong


def changed_encoder_loss(cls, change):
    right = cls.encoder_loss

    def wrong(self, encode, decode, batch, mean):
        loss, (z, reported) = right(self, encode, decode, batch, mean)
        return loss + change(self, reported), (z, reported)

    return cls, "encoder_loss", wrong


def hinge_in_the_decoder(self, encode, decode, batch, z, mean):
    hinges = [jax.nn.relu(self.margin - mean(terms.kl(*encode(decode(v))))) for v in (detached(z), batch.zp)]
    return self.alpha_d * sum(hinges), {}


def hinge_of(slack):
    def wrong(self, encode, images, margin, mean):
        kl = terms.kl(*encode(detached(images)))
        return jax.nn.relu(slack(margin, kl)), jnp.ones(()), mean(kl)

    return wrong


def negative_in_the_exponential(self, encode, decode, batch, mean):
    return RIGHT_SOFT(dataclasses.replace(self, beta_neg=-self.beta_neg), encode, decode, batch, mean)


def in_the_old_order(*args, **options):
    return RIGHT_STEP(*args, **options | {"update_order": "simultaneous"})


def variance_for_deviation(latents, mean):
    mu, var = jnp.mean(latents, 0), jnp.var(latents, 0)
    return jnp.mean((var**2 + mu**2) / 2 - jnp.log(var) - 0.5)


def unbiased_variance(latents, mean):
    mu, var = jnp.mean(latents, 0), jnp.var(latents, 0, ddof=1)
    return jnp.mean((var + mu**2) / 2 - jnp.log(var) / 2 - 0.5)


RIGHT_SOFT, RIGHT_STEP, KL, AE = SOFT.encoder_loss, step_lib.make_step, terms.kl, terms.reconstruction
SAMPLED = terms.reparameterize
NOT_DETACHED = (jax.lax, "stop_gradient", lambda x: x)
ELBO_OF_MEAN = types.SimpleNamespace(exp=lambda v: jnp.exp(jnp.mean(v)) * jnp.ones_like(v), zeros=jnp.zeros)

on = functools.partial

# The check, and what is put in whose place.
BUGS = {
    "samples give the decoder no gradient": (decoder_lowers_the_kl_of_samples, *without_gradient_of_samples(INTRO)),
    "the same in soft_introvae": (on(decoder_lowers_the_kl_of_samples, "soft_introvae"),
                                  *without_gradient_of_samples(SOFT)),
    "the same in age": (age_decoder_widens_samples_that_are_too_narrow, *without_gradient_of_samples(AGE)),
    "alpha on one hinge": (alpha_weighs_both_hinges, *changed_encoder_loss(
        INTRO, lambda s, t: (1 - s.alpha) * (s.margin - t["kl_fake"]))),
    "decoder minimises the hinge": (decoder_lowers_the_kl_of_samples, INTRO, "decoder_loss", hinge_in_the_decoder),
    "decoder stops at the margin": (decoder_still_pulls_beyond_the_margin, INTRO, "decoder_loss",
                                    lambda *a: (-hinge_in_the_decoder(*a)[0], {})),
    "kl summed over the batch": (twice_the_same_batch_teaches_the_same, INTRO, "_hinge",
                                 hinge_of(lambda margin, kl: margin - jnp.sum(kl))),
    "root of the squared error": (decoder_solves_least_squares_in_one_step, terms, "reconstruction",
                                  lambda x, xr: jnp.sqrt(2 * AE(x, xr))),
    "no 1/2 before the squared error": (decoder_solves_least_squares_in_one_step, terms, "reconstruction",
                                        lambda x, xr: 2 * AE(x, xr)),
    "mean over pixels": (decoder_solves_least_squares_in_one_step, terms, "reconstruction",
                         lambda x, xr: AE(x, xr) / 3),
    "mean over latents": (latents_that_say_nothing_cost_nothing, terms, "kl",
                          lambda mu, logvar: KL(mu, logvar) / mu.shape[1]),
    "sign of the kl": (encoder_lowers_the_kl_of_real_images, terms, "kl", lambda *a: -KL(*a)),
    "the same in soft_introvae's decoder": (on(decoder_lowers_the_kl_of_samples, "soft_introvae"), terms, "kl",
                                            lambda *a: -KL(*a)),
    "encoder lowers the kl of generated images": (encoder_raises_the_kl_of_generated_images, INTRO, "_hinge",
                                                  hinge_of(lambda _, kl: jnp.mean(kl))),
    "hinge turned round": (encoder_leaves_them_alone_beyond_the_margin, INTRO, "_hinge",
                           hinge_of(lambda margin, kl: jnp.mean(kl) - margin)),
    "sign in the exponential": (on(encoder_raises_the_kl_of_generated_images, "soft_introvae"), SOFT, "encoder_loss",
                                negative_in_the_exponential),
    "age's encoder pulls samples near": (age_encoder_drives_the_two_apart, *changed_encoder_loss(
        AGE, lambda s, t: 2 * t["kl_fake"])),
    "generated images not detached": (real_images_are_not_moved_by_how_generated_ones_look, *NOT_DETACHED),
    "the same in soft_introvae, encoder": (on(real_images_are_not_moved_by_how_generated_ones_look, "soft_introvae"),
                                           *NOT_DETACHED),
    "the same in soft_introvae, decoder": (decoder_sees_the_latents_of_samples_as_constants, *NOT_DETACHED),
    "exp of the batch's mean elbo": (a_hopeless_sample_does_not_silence_the_others, soft_introvae, "jnp",
                                     ELBO_OF_MEAN),
    "no scale by the image's size": (the_size_of_images_does_not_matter, soft_introvae, "_scale", lambda x: 1.0),
    "latents of real images detached": (encoder_learns_to_reconstruct, terms, "reparameterize",
                                        lambda *a: detached(SAMPLED(*a))),
    "decoder judged by the old encoder": (decoder_is_judged_by_the_updated_encoder, step_lib, "make_step",
                                          in_the_old_order),
    "variance for the deviation": (age_measures_in_standard_deviations, age, "_kl_of_batch", variance_for_deviation),
    "unbiased variance": (on(twice_the_same_batch_teaches_the_same, "age", CLOUD), age, "_kl_of_batch",
                          unbiased_variance),
    "product for the cosine": (age_looks_at_directions, terms, "cosine", lambda a, b: jnp.sum(a * b, 1)),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_passes_here_and_finds_the_bug(bug, monkeypatch):
    check, owner, name, wrong = BUGS[bug]
    check()
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(AssertionError):
        check()
