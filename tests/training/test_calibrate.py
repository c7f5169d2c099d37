"""Recalibrated BatchNorm statistics against moments taken directly."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import digits as digits_config
from introvae_jax import parallel
from introvae_jax.data import digits, source
from introvae_jax.experiment import Experiment
from introvae_jax.nets.residual import Decoder, Encoder
from introvae_jax.training import calibrate

OPTIONS = {"channels": (8, 8), "z_dim": 4}


def setup():
    encoder, decoder = Encoder(**OPTIONS), Decoder(**OPTIONS, image_channels=1)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 16, 1), dtype=np.uint8)
    params_e = encoder.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))["params"]
    params_d = decoder.init(jax.random.key(1), jnp.zeros((1, 4)))["params"]
    statistics = calibrate.make_calibrator(encoder, decoder)(params_e, params_d, list(images), jax.random.key(2))
    return encoder, decoder, params_e, params_d, images, statistics


def test_the_first_layer_s_statistics_are_the_moments_of_all_images_together():
    _, _, params_e, _, images, statistics = setup()
    x = images.reshape(-1, 16, 16, 1) / np.float32(255)
    stem = jax.lax.conv_general_dilated(
        x, params_e["stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    stored = statistics["encoder"]["stem_norm"]["BatchNorm_0"]
    np.testing.assert_allclose(stored["mean"], np.mean(stem, (0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stored["var"], np.var(stem, (0, 1, 2)), rtol=1e-4)


def test_with_them_a_single_image_is_treated_as_in_its_batch():
    """Up to what batches differ: on average within a tenth of the outputs' spread."""
    encoder, decoder, params_e, params_d, images, statistics = setup()
    x = images[0] / np.float32(255)
    in_batch = encoder.apply({"params": params_e}, x)[0]
    variables = {"params": params_e, "batch_stats": statistics["encoder"]}
    alone = np.concatenate([encoder.apply(variables, x[i : i + 1], use_running_average=True)[0] for i in range(4)])
    assert np.abs(alone - in_batch[:4]).mean() < 0.1 * np.std(in_batch)

    z = jax.random.normal(jax.random.key(9), (256, 4))
    in_batch = decoder.apply({"params": params_d}, z)
    alone = decoder.apply({"params": params_d, "batch_stats": statistics["decoder"]}, z[:1], use_running_average=True)
    assert np.abs(alone - in_batch[:1]).mean() < 0.1 * np.std(in_batch)


def test_the_decoder_has_statistics_for_samples_and_for_reconstructions():
    """Latents of images as far from the prior as these must be normalised by moments of their own."""
    encoder, decoder, params_e, params_d, images, _ = setup()
    params_e["moments"]["bias"] = params_e["moments"]["bias"].at[:4].add(3.0)  # mu around 3
    statistics = calibrate.make_calibrator(encoder, decoder)(params_e, params_d, list(images), jax.random.key(2))
    mu, logvar = encoder.apply({"params": params_e}, images.reshape(-1, 16, 16, 1) / np.float32(255))
    z = mu + jnp.exp(logvar / 2) * jax.random.normal(jax.random.key(5), mu.shape)
    for kind, latents in (("decoder_rec", z), ("decoder", jax.random.normal(jax.random.key(6), (512, 4)))):
        wanted = decoder.apply({"params": params_d}, latents)
        errors = {
            name: np.abs(
                decoder.apply({"params": params_d, "batch_stats": statistics[name]}, latents, use_running_average=True)
                - wanted
            ).mean()
            for name in ("decoder", "decoder_rec")
        }
        assert errors[kind] < 0.2 * max(errors.values()), (kind, errors)


def test_a_run_calibrates_on_images_of_all_kinds():
    """The embedded digits are stored by class; the first thousand would be zeros, ones and twos only."""
    config = digits_config.get_config()
    config.checkpoint.calibration_batches = 16
    replicas = parallel.replicas(tuple(jax.devices()[:1]))
    networks = Experiment(config, replicas).networks
    rows = calibrate.Calibration(config, networks, source.open_splits(config.data).train).rows.ravel()
    labels = digits.load()[1][~digits.is_test()][rows]
    assert np.bincount(labels, minlength=10).min() > len(rows) / 20
    assert len(set(rows)) == len(rows)


def test_pooling_moments_of_parts_gives_those_of_the_whole():
    parts = np.random.default_rng(0).standard_normal((5, 40, 3)) * [1.0, 2.0, 3.0] + np.arange(5)[:, None, None]
    passes = [{"layer": {"mean": p.mean(0), "var": p.var(0)}} for p in parts]
    pooled = calibrate.pool(passes)["layer"]
    np.testing.assert_allclose(pooled["mean"], parts.reshape(-1, 3).mean(0), rtol=1e-5)
    np.testing.assert_allclose(pooled["var"], parts.reshape(-1, 3).var(0), rtol=1e-5)
