"""Introspective variational autoencoder (Huang et al. 2018, arXiv 1807.06358, equations 11 and 12)."""

import dataclasses

import jax

from introvae_jax.objectives import base, terms

HINGES = ("batch", "sample")


@dataclasses.dataclass(frozen=True)
class IntroVAE(base.Objective):
    """The encoder tells real images from generated ones by their KL; the decoder closes the gap.

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

    decoder_loss_is_linear = True

    @property
    def encoder_loss_is_linear(self) -> bool:
        return self.hinge == "sample"

    def _hinge(self, kl: jax.Array, mean: base.Mean) -> tuple[jax.Array, jax.Array]:
        """[m - KL]_+ reduced to a scalar, and the share of it that is active, in [0, 1]."""
        slack = self.margin - (mean(kl) if self.hinge == "batch" else kl)
        value, active = jax.nn.relu(slack), (slack > 0).astype(slack.dtype)
        return (value, active) if self.hinge == "batch" else (mean(value), mean(active))

    def encoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, mean: base.Mean
    ) -> tuple[jax.Array, tuple[jax.Array, base.Terms]]:
        """L_E: the generated images are constants; only the reconstruction term looks through the decoder."""
        mu, logvar = encode(batch.x)
        z = terms.reparameterize(mu, logvar, batch.eps)
        rec, fake = decode(z), decode(batch.zp)
        kl_real = mean(terms.kl(mu, logvar))
        kl_rec = terms.kl(*encode(jax.lax.stop_gradient(rec)))
        kl_fake = terms.kl(*encode(jax.lax.stop_gradient(fake)))
        loss_rec = mean(terms.reconstruction(batch.x, rec))
        hinge_rec, active_rec = self._hinge(kl_rec, mean)
        hinge_fake, active_fake = self._hinge(kl_fake, mean)
        loss = kl_real + self.alpha * (hinge_rec + hinge_fake) + self.beta * loss_rec
        kl_rec, kl_fake = mean(kl_rec), mean(kl_fake)
        return loss, (z, {
            "kl_real": kl_real, "kl_rec": kl_rec, "kl_fake": kl_fake,
            "kl_gap": 0.5 * (kl_rec + kl_fake) - kl_real, "loss_rec": loss_rec,
            "hinge_rec_active": active_rec, "hinge_fake_active": active_fake,
        })  # fmt: skip

    def decoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, z: jax.Array, mean: base.Mean
    ) -> tuple[jax.Array, base.Terms]:
        """L_D: no hinge; the KL terms reach the decoder through the encoder, whose parameters stay put."""
        rec, fake = decode(jax.lax.stop_gradient(z)), decode(batch.zp)
        kl_rec, kl_fake = mean(terms.kl(*encode(rec))), mean(terms.kl(*encode(fake)))
        loss_rec = mean(terms.reconstruction(batch.x, rec))
        return self.alpha_d * (kl_rec + kl_fake) + self.beta * loss_rec, {}
