"""Adversarial generator-encoder networks (Ulyanov et al. 2018, arXiv 1704.02304, equations 4 to 8).

Latents lie on the unit sphere and the encoder is deterministic, so a single latent has no KL to the prior. The KL is
that of the Gaussian with the batch's mean and variance in each dimension.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from introvae_jax.objectives import base, terms


@dataclasses.dataclass(frozen=True)
class AGE(base.Objective):
    """The encoder minimises the KL of real latents and maximises that of generated ones; the decoder minimises it.

    match_x: weight of the encoder's reconstruction term, the absolute error per pixel. match_z: weight of the decoder's
    reconstruction term, 1 - cosine between a latent and the latent of its image. Requires networks with `sphere`.
    """

    match_x: float
    match_z: float

    has_warmup = False

    @classmethod
    def remedy(cls, settings: Mapping[str, Any]) -> str:
        return "raise match_x, or lower the learning rate"

    @classmethod
    def check(cls, values: Mapping[str, Any], require: base.Require) -> None:
        require(values["data.source"] != "density", "objective.name", "another one: points on a circle cover no plane")
        require(values["model.prior"] == "sphere", "model.prior",
                "'sphere' for objective.name = 'age' (configs/digits.py:age sets it)")  # fmt: skip
        require(values["objective.warmup_steps"] == 0, "objective.warmup_steps", "0: age has no warm-up")

    def encoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, mean: base.Mean
    ) -> tuple[jax.Array, tuple[jax.Array, base.Terms]]:
        """The encoder's loss (eq. 4 to 8): KL of real latents - KL of generated latents + match_x * absolute error."""
        z, _ = encode(batch.x)
        copy, fake = decode(z), decode(batch.zp)
        kl_real = _kl_of_batch(z, mean)
        kl_fake = _kl_of_batch(encode(jax.lax.stop_gradient(fake))[0], mean)
        loss_x = mean(terms.absolute_error(batch.x, copy))
        return kl_real - kl_fake + self.match_x * loss_x, (z, {
            "kl_real": kl_real, "kl_fake": kl_fake, "kl_gap": kl_fake - kl_real,
            "loss_rec": mean(terms.reconstruction(batch.x, copy)), "loss_x": loss_x,
        })  # fmt: skip

    def decoder_loss(
        self, encode: base.Encode, decode: base.Decode, batch: base.Batch, z: jax.Array, mean: base.Mean
    ) -> tuple[jax.Array, base.Terms]:
        """The decoder's loss (eq. 4 to 8): KL of generated images' latents + match_z * (1 - cosine)."""
        latents, _ = encode(decode(batch.zp))
        loss_z = mean(1.0 - terms.cosine(latents, batch.zp))
        return _kl_of_batch(latents, mean) + self.match_z * loss_z, {"loss_z": loss_z}


def _kl_of_batch(latents: jax.Array, mean: base.Mean) -> jax.Array:
    """KL of the Gaussian with the global batch's moments to N(0, I), the mean over dimensions (equation 8)."""
    mu = mean(latents)
    variance = mean(jnp.square(latents - mu[None]))
    return terms.kl(mu, jnp.log(variance)) / latents.shape[-1]
