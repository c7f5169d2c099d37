"""Introspective variational autoencoder (Huang et al. 2018, arXiv 1807.06358, equations 11 and 12)."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from introvae_jax.objectives import base, introvae_health, terms, weighting
from introvae_jax.objectives.shared_gradient import shared_gradient

HINGES = ("batch", "sample")


@dataclasses.dataclass(frozen=True)
class IntroVAE(base.Objective):
    """The encoder separates real from generated images by their KL; the decoder closes the gap.

    alpha: weight of the encoder's two hinges. alpha_d: weight of the decoder's two KL terms.
    beta, auto_beta: weight of the reconstruction term, as in weighting.reconstruction_term.
    margin: m, the KL in nats up to which the encoder pushes generated images. margin_offset: if above 0,
    m is the mean KL of the global batch's real images plus this, a constant to the gradient.
    hinge: "batch", the hinge of the global batch's mean KL (the authors' code), or "sample", the mean
    of each image's hinge.
    """

    alpha: float
    alpha_d: float
    beta: float
    margin: float
    hinge: str
    margin_offset: float = 0.0
    auto_beta: float = 0.0

    rules = introvae_health.RULES
    panels = base.Objective.panels | {"active share of the hinges": ("hinge_rec_active", "hinge_fake_active")}

    @classmethod
    def remedy(cls, settings: Mapping[str, Any]) -> str:
        margin = "margin_offset" if settings.get("margin_offset") else "the margin"
        return f"raise {weighting.key(settings)}, or lower alpha_d, {margin} or the learning rate"

    @classmethod
    def elbo_beta(cls, settings: Mapping[str, Any]) -> float:
        return settings["beta"]  # the KL of real images has weight one

    @classmethod
    def levels(cls, settings: Mapping[str, Any]) -> dict[str, float]:
        return {} if settings.get("margin_offset") else {"margin": settings["margin"]}

    @classmethod
    def describe(cls, record: base.Record) -> list[str]:
        hinges = []
        if "hinge_rec_active" in record:  # not in the warm-up
            hinges = [f"hinge rec {record['hinge_rec_active']:.0%} fake {record['hinge_fake_active']:.0%}"]
        return hinges + super().describe(record)

    def _margin(self, kl_real: jax.Array) -> jax.Array | float:
        """m. kl_real: mean KL of the global batch's real images."""
        return jax.lax.stop_gradient(kl_real) + self.margin_offset if self.margin_offset > 0 else self.margin

    def _hinge(
        self, encode: base.Encode, images: jax.Array, margin: jax.Array | float, mean: base.Mean
    ) -> tuple[jax.Array, ...]:
        """Of generated images: [m - KL]_+ reduced to a scalar, the share of it that is active, and the mean KL."""
        images = jax.lax.stop_gradient(images)
        if self.hinge == "batch":
            kl = _mean_kl(encode, images, mean)
            slack = margin - kl
            return jax.nn.relu(slack), (slack > 0).astype(slack.dtype), kl
        kl = terms.kl(*encode(images))
        slack = margin - kl
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
        margin = self._margin(kl_real)
        hinge_rec, active_rec, kl_rec = self._hinge(encode, rec, margin, mean)
        hinge_fake, active_fake, kl_fake = self._hinge(encode, fake, margin, mean)
        weighted, moving = weighting.reconstruction_term(loss_rec, batch.x, self.beta, self.auto_beta)
        if self.margin_offset > 0:
            moving = {**moving, "margin": jnp.asarray(margin)}
        loss = kl_real + self.alpha * (hinge_rec + hinge_fake) + weighted
        return loss, (z, {
            "kl_real": kl_real, "kl_rec": kl_rec, "kl_fake": kl_fake,
            "kl_gap": 0.5 * (kl_rec + kl_fake) - kl_real, "loss_rec": loss_rec,
            "hinge_rec_active": active_rec, "hinge_fake_active": active_fake,
            **moving,
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
        weighted, _ = weighting.reconstruction_term(loss_rec, batch.x, self.beta, self.auto_beta)
        return self.alpha_d * (kl_rec + kl_fake) + weighted, {}


def _mean_kl(encode: base.Encode, images: jax.Array, mean: base.Mean) -> jax.Array:
    """Mean KL of generated images, whose gradient the batch's hinge and the decoder's loss share."""
    return shared_gradient(lambda encode, images: mean(terms.kl(*encode(images))), encode, images)
