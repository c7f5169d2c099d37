"""Introspective variational autoencoder (Huang et al. 2018, arXiv 1807.06358, equations 11 and 12)."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax

from introvae_jax.objectives import base, introvae_health, terms
from introvae_jax.objectives.shared_gradient import shared_gradient

HINGES = ("batch", "sample")


@dataclasses.dataclass(frozen=True)
class IntroVAE(base.Objective):
    """The encoder separates real from generated images by their KL; the decoder closes the gap.

    alpha: weight of the encoder's two hinges. alpha_d: weight of the decoder's two KL terms.
    beta: weight of the reconstruction term. margin: m, the KL in nats up to which the encoder
    pushes generated images. hinge: "batch", the hinge of the global batch's mean KL (the authors'
    code), or "sample", the mean of each image's hinge.
    """

    alpha: float
    alpha_d: float
    beta: float
    margin: float
    hinge: str

    rules = introvae_health.RULES
    remedy = "raise beta, or lower alpha_d, the margin or the learning rate"
    panels = base.Objective.panels | {"active share of the hinges": ("hinge_rec_active", "hinge_fake_active")}

    @classmethod
    def elbo_beta(cls, settings: Mapping[str, Any]) -> float:
        return settings["beta"]  # the KL of real images has weight one

    @classmethod
    def levels(cls, settings: Mapping[str, Any]) -> dict[str, float]:
        return {"margin": settings["margin"]}

    @classmethod
    def describe(cls, record: base.Record) -> list[str]:
        if "hinge_rec_active" not in record:  # in the warm-up
            return []
        return [f"hinge rec {record['hinge_rec_active']:.0%} fake {record['hinge_fake_active']:.0%}"]

    def _hinge(self, encode: base.Encode, images: jax.Array, mean: base.Mean) -> tuple[jax.Array, ...]:
        """Of generated images: [m - KL]_+ reduced to a scalar, the share of it that is active, and the mean KL."""
        images = jax.lax.stop_gradient(images)
        if self.hinge == "batch":
            kl = _mean_kl(encode, images, mean)
            slack = self.margin - kl
            return jax.nn.relu(slack), (slack > 0).astype(slack.dtype), kl
        kl = terms.kl(*encode(images))
        slack = self.margin - kl
        return mean(jax.nn.relu(slack)), mean((slack > 0).astype(slack.dtype)), mean(kl)

    def encoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, mean: base.Mean
    ) -> tuple[jax.Array, tuple[jax.Array, base.Terms]]:
        """L_E (eq. 11): KL of real images + alpha * both hinges of generated images + beta * AE.

        Generated images are constants in the hinges; only AE reaches the encoder through the decoder.
        """
        mu, logvar = encode(batch.x)
        z = terms.reparameterize(mu, logvar, batch.eps)
        rec, fake = decode(z), decode(batch.zp)
        kl_real = mean(terms.kl(mu, logvar))
        loss_rec = mean(terms.reconstruction(batch.x, rec))
        hinge_rec, active_rec, kl_rec = self._hinge(encode, rec, mean)
        hinge_fake, active_fake, kl_fake = self._hinge(encode, fake, mean)
        loss = kl_real + self.alpha * (hinge_rec + hinge_fake) + self.beta * loss_rec
        return loss, (z, {
            "kl_real": kl_real, "kl_rec": kl_rec, "kl_fake": kl_fake,
            "kl_gap": 0.5 * (kl_rec + kl_fake) - kl_real, "loss_rec": loss_rec,
            "hinge_rec_active": active_rec, "hinge_fake_active": active_fake,
        })  # fmt: skip

    def decoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, z: jax.Array, mean: base.Mean
    ) -> tuple[jax.Array, base.Terms]:
        """L_D (eq. 12): alpha_d * both KL of generated images + beta * AE.

        The KL terms reach the decoder through the encoder, whose parameters are constants here.
        """
        rec, fake = decode(jax.lax.stop_gradient(z)), decode(batch.zp)
        kl_rec, kl_fake = _mean_kl(encode, rec, mean), _mean_kl(encode, fake, mean)
        loss_rec = mean(terms.reconstruction(batch.x, rec))
        return self.alpha_d * (kl_rec + kl_fake) + self.beta * loss_rec, {}


def _mean_kl(encode: base.Encode, images: jax.Array, mean: base.Mean) -> jax.Array:
    """Mean KL of generated images, whose gradient the batch's hinge and the decoder's loss share."""
    return shared_gradient(lambda encode, images: mean(terms.kl(*encode(images))), encode, images)
