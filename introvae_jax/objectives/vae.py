"""The variational autoencoder, also the warm-up of other objectives. With beta_kl = 1: IntroVAE with both alphas 0."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax

from introvae_jax.objectives import base, terms, weighting


@dataclasses.dataclass(frozen=True)
class VAE(base.Objective):
    """beta_kl * KL(E(x)) + beta * AE(x, D(z)); both networks minimise it (Kingma and Welling 2014, arXiv 1312.6114).

    beta, auto_beta: weight of the reconstruction term, as in weighting.reconstruction_term. beta_kl: weight of the KL.
    """

    beta: float
    beta_kl: float
    auto_beta: float = 0.0

    has_warmup = False

    @classmethod
    def remedy(cls, settings: Mapping[str, Any]) -> str:
        return f"raise {weighting.key(settings)}, or lower the learning rate"

    def encoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, mean: base.Mean
    ) -> tuple[jax.Array, tuple[jax.Array, base.Terms]]:
        """The negative ELBO (eq. 10 of Kingma and Welling): beta_kl * KL + beta * AE."""
        mu, logvar = encode(batch.x)
        z = terms.reparameterize(mu, logvar, batch.eps)
        kl_real = mean(terms.kl(mu, logvar))
        loss_rec = mean(terms.reconstruction(batch.x, decode(z)))
        weighted, moving = weighting.reconstruction_term(loss_rec, batch.x, self.beta, self.auto_beta)
        return self.beta_kl * kl_real + weighted, (z, {"kl_real": kl_real, "loss_rec": loss_rec, **moving})

    def decoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, z: jax.Array, mean: base.Mean
    ) -> tuple[jax.Array, base.Terms]:
        """The part of the negative ELBO (eq. 10) that depends on the decoder: beta * AE."""
        loss_rec = mean(terms.reconstruction(batch.x, decode(z)))
        return weighting.reconstruction_term(loss_rec, batch.x, self.beta, self.auto_beta)[0], {}
