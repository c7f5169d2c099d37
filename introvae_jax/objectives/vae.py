"""The variational autoencoder, also the warm-up of other objectives. With beta_kl = 1: IntroVAE with both alphas 0."""

import dataclasses

import jax

from introvae_jax.objectives import base, terms


@dataclasses.dataclass(frozen=True)
class VAE(base.Objective):
    """beta_kl * KL(E(x)) + beta * AE(x, D(z)); both networks minimise it (Kingma and Welling 2014, arXiv 1312.6114).

    beta: weight of the reconstruction term, above 0. beta_kl: weight of the KL.
    """

    beta: float
    beta_kl: float

    has_warmup = False
    remedy = "raise beta, or lower the learning rate"

    def encoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, mean: base.Mean
    ) -> tuple[jax.Array, tuple[jax.Array, base.Terms]]:
        """The negative ELBO (eq. 10 of Kingma and Welling): beta_kl * KL + beta * AE."""
        mu, logvar = encode(batch.x)
        z = terms.reparameterize(mu, logvar, batch.eps)
        kl_real = mean(terms.kl(mu, logvar))
        loss_rec = mean(terms.reconstruction(batch.x, decode(z)))
        return self.beta_kl * kl_real + self.beta * loss_rec, (z, {"kl_real": kl_real, "loss_rec": loss_rec})

    def decoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, z: jax.Array, mean: base.Mean
    ) -> tuple[jax.Array, base.Terms]:
        """The part of the negative ELBO (eq. 10) that depends on the decoder: beta * AE."""
        return self.beta * mean(terms.reconstruction(batch.x, decode(z))), {}
