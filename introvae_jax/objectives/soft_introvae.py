"""Soft-IntroVAE (Daniel and Tamar 2021, arXiv 2012.13253, equation 4 with the weights of its section 5)."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from introvae_jax.objectives import base, terms


def negative_gap(records: Sequence[base.Record], facts: base.Facts) -> str | None:
    """Generated images are closer to the prior than real images."""
    last = records[-1]
    if "exp_elbo_rec" not in last or last["kl_real"] < 1 or last["kl_gap"] > -0.05 * last["kl_real"]:
        return None
    if last["exp_elbo_fake"] > 0.01:
        return None
    return (
        f"the gap is negative ({last['kl_gap']:+.1f}): the encoder does not reject generated images, samples do not "
        f"improve. Lower beta_neg ({facts.objective['beta_neg']:g}): the encoder has no gradient while exp(ELBO) is 0"
    )


@dataclasses.dataclass(frozen=True)
class SoftIntroVAE(base.Objective):
    """No margin: the encoder lowers exp(ELBO) of generated images, the decoder raises their ELBO.

    beta: weight of the reconstruction term. beta_kl: weight of the KL of real images for the encoder and of
    generated ones for the decoder. beta_neg: weight of the KL inside the encoder's exponentials.
    gamma: weight, relative to beta, of the decoder's reconstruction of generated images; 0 saves two network passes.
    s is one over the number of values in an image. A generated image is a constant for the encoder, also as the target
    of its own reconstruction.

    Both losses are the published ones divided by s, so that they are in nats, as those of a VAE. Adam's steps equal the
    published ones if its epsilon is divided by s too (optim.epsilon; presets.py sets it). With the published scale, the
    gradients after a VAE warm-up would be s times (1/3072 at CIFAR-10 size) the gradients in Adam's second moments, and
    the weights would hardly change for ten thousand steps.
    """

    beta: float
    beta_kl: float
    beta_neg: float
    gamma: float

    rules = (negative_gap,)
    panels = base.Objective.panels | {"exp(ELBO)": ("exp_elbo_rec", "exp_elbo_fake")}

    @classmethod
    def remedy(cls, settings: Mapping[str, Any]) -> str:
        return "raise beta, or lower the learning rate"

    @classmethod
    def describe(cls, record: base.Record) -> list[str]:
        if "exp_elbo_rec" not in record:  # in the warm-up
            return []
        return [f"exp(ELBO) rec {record['exp_elbo_rec']:.3f} fake {record['exp_elbo_fake']:.3f}"]

    def encoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, mean: base.Mean
    ) -> tuple[jax.Array, tuple[jax.Array, base.Terms]]:
        """L_E / s (eq. 4): negative ELBO of real images + 1 / (4 s) of exp(2 s ELBO) of each kind of generated ones."""
        s = _scale(batch.x)
        mu, logvar = encode(batch.x)
        z = terms.reparameterize(mu, logvar, batch.eps)
        rec, fake = decode(z), decode(batch.zp)
        kl_real, loss_rec = mean(terms.kl(mu, logvar)), mean(terms.reconstruction(batch.x, rec))

        def exp_elbo(image: jax.Array, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
            """exp(2 s ELBO) averaged, in [0, 1], and the KL averaged."""
            image = jax.lax.stop_gradient(image)
            mu, logvar = encode(image)
            kl, copy = terms.kl(mu, logvar), decode(terms.reparameterize(mu, logvar, eps))
            energy = self.beta * terms.reconstruction(image, copy) + self.beta_neg * kl
            return mean(jnp.exp(-2.0 * s * energy)), mean(kl)

        exp_elbo_rec, kl_rec = exp_elbo(rec, batch.eps_rec)
        exp_elbo_fake, kl_fake = exp_elbo(fake, batch.eps_fake)
        loss = self.beta * loss_rec + self.beta_kl * kl_real + 0.25 / s * (exp_elbo_rec + exp_elbo_fake)
        return loss, (z, {
            "kl_real": kl_real, "kl_rec": kl_rec, "kl_fake": kl_fake,
            "kl_gap": 0.5 * (kl_rec + kl_fake) - kl_real, "loss_rec": loss_rec,
            "exp_elbo_rec": exp_elbo_rec, "exp_elbo_fake": exp_elbo_fake,
        })  # fmt: skip

    def decoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, z: jax.Array, mean: base.Mean
    ) -> tuple[jax.Array, base.Terms]:
        """L_D / s (eq. 4): beta * AE of real images + half the negative ELBO of each kind of generated ones."""

        def of_generated(z: jax.Array, eps: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            """A generated image, its KL, and the error of its reconstruction with the latents held constant."""
            image = decode(z)
            mu, logvar = encode(image)
            if self.gamma == 0:
                return image, mean(terms.kl(mu, logvar)), jnp.zeros(())
            latents = jax.lax.stop_gradient(terms.reparameterize(mu, logvar, eps))
            error = terms.reconstruction(jax.lax.stop_gradient(image), decode(latents))
            return image, mean(terms.kl(mu, logvar)), mean(error)

        rec, kl_rec, error_rec = of_generated(jax.lax.stop_gradient(z), batch.eps_rec)
        _, kl_fake, error_fake = of_generated(batch.zp, batch.eps_fake)
        loss = self.beta * mean(terms.reconstruction(batch.x, rec)) + 0.5 * self.beta_kl * (kl_rec + kl_fake)
        loss += 0.5 * self.gamma * self.beta * (error_rec + error_fake)
        return loss, {}


def _scale(x: jax.Array) -> float:
    return 1.0 / math.prod(x.shape[1:])
