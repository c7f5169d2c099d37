"""What an objective of this family is: two losses over the same noise, one for each network.

An objective is a frozen dataclass of the class `Objective` (its fields are the keys of `config.objective` that it
reads) with

    encoder_loss(encode, decode, batch, mean) -> (loss, (z, terms))
    decoder_loss(encode, decode, batch, z, mean) -> (loss, terms)

encode: images -> (mu, logvar), a function, or one that is a tree of its parameters (slopes.py says what for).
decode: latents -> images. mean: [B, ...] -> [...], the mean over the GLOBAL batch. z: the latents of the real images,
handed on so that they are encoded once. terms: scalars by name, for the log; "loss_rec", half the squared error, is
always one of them. The step differentiates the first loss with respect to the encoder's parameters and the second with
respect to the decoder's, nothing else.
"""

from collections.abc import Callable
from typing import Protocol

from flax import struct
import jax

Encode = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
Decode = Callable[[jax.Array], jax.Array]
Mean = Callable[[jax.Array], jax.Array]
Terms = dict[str, jax.Array]


class Batch(struct.PyTreeNode):
    """One step's randomness, drawn once.

    x: real images [B, H, W, C] in [0, 1], or points [B, 2]. eps: noise of the reparameterisation [B, Z].
    zp: latents from the prior N(0, I) [B, Z]. eps_rec, eps_fake: noise for the latents of reconstructed
    and of sampled images [B, Z]. What an objective does not use is not drawn once compiled.
    """

    x: jax.Array
    eps: jax.Array
    zp: jax.Array
    eps_rec: jax.Array
    eps_fake: jax.Array


class Objective(Protocol):
    """The two functions that every objective has; see the module's docstring."""

    def encoder_loss(
        self, encode: Encode, decode: Decode, batch: Batch, mean: Mean
    ) -> tuple[jax.Array, tuple[jax.Array, Terms]]: ...

    def decoder_loss(
        self, encode: Encode, decode: Decode, batch: Batch, z: jax.Array, mean: Mean
    ) -> tuple[jax.Array, Terms]: ...
