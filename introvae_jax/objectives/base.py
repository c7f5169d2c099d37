"""The interface of objectives: two losses over the same noise, one for each network.

An objective is a frozen dataclass that derives from `Objective`. Its fields are the keys of `config.objective` that it
reads. Its two methods are

    encoder_loss(encode, decode, batch, mean) -> (loss, (z, terms))
    decoder_loss(encode, decode, batch, z, mean) -> (loss, terms)

encode: images -> (mu, logvar), a function, or a pytree that holds its parameters (see shared_gradient.py).
decode: latents -> images. mean: [B, ...] -> [...], the mean over the GLOBAL batch. z: the latents of the real images;
the decoder's loss reuses them, so that the images are encoded once. terms: scalars by name, for the log; they always
include "loss_rec", half the squared error. The step differentiates the first loss with respect to the encoder's
parameters only, and the second with respect to the decoder's parameters only.

Everything else that depends on the objective is a member of `Objective` with a default: its constraints on other config
values, its health rules, its panels in curves.png, its part of a log line, its beta.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, ClassVar

from flax import struct
import jax

Encode = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
Decode = Callable[[jax.Array], jax.Array]
Mean = Callable[[jax.Array], jax.Array]
Terms = dict[str, jax.Array]
Record = Mapping[str, float]  # a line of metrics.jsonl: terms by name, averaged over the steps since the last one
Require = Callable[[bool, str, str], None]  # (ok, config key, what is allowed): raises UserError unless ok


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a run for health rules. objective: `config.objective`. constant_error: loss_rec of the mean image."""

    objective: Mapping[str, Any]
    constant_error: float


PATIENCE = 10  # records after which a run, or what follows its warm-up, should have learnt something
Rule = Callable[[Sequence[Record], Facts], str | None]  # records so far -> advice, None if the run is healthy


class Batch(struct.PyTreeNode):
    """The images and the noise of one step, which both losses share.

    x: real images [B, H, W, C] in [0, 1], or points [B, 2]. eps: noise of the reparameterisation [B, Z].
    zp: latents from the prior N(0, I) [B, Z]. eps_rec, eps_fake: noise for the latents of reconstructed and of sampled
    images [B, Z]. The compiler removes the draws that an objective does not use.
    """

    x: jax.Array
    eps: jax.Array
    zp: jax.Array
    eps_rec: jax.Array
    eps_fake: jax.Array


class Objective:
    """The base class of objectives. A subclass implements the two losses; the other members have defaults.

    has_warmup: True if training may start with `objective.warmup_steps` as a plain VAE. rules: additional rules for
    reporting/health.py. panels: terms that share a panel of curves.png, by title.
    """

    has_warmup: ClassVar[bool] = True
    rules: ClassVar[tuple[Rule, ...]] = ()
    panels: ClassVar[dict[str, Sequence[str]]] = {
        "KL to the prior (nats)": ("kl_real", "kl_rec", "kl_fake", "margin"),
        "reconstruction (half squared error)": ("loss_rec",),
    }

    def encoder_loss(
        self, encode: Encode, decode: Decode, batch: Batch, mean: Mean
    ) -> tuple[jax.Array, tuple[jax.Array, Terms]]:
        """The encoder's loss, a scalar; the latents of the real images, [B, Z]; and scalar terms for the log."""
        raise NotImplementedError

    def decoder_loss(
        self, encode: Encode, decode: Decode, batch: Batch, z: jax.Array, mean: Mean
    ) -> tuple[jax.Array, Terms]:
        """The decoder's loss, a scalar, and scalar terms for the log. z: the latents that encoder_loss returned."""
        raise NotImplementedError

    @classmethod
    def check(cls, values: Mapping[str, Any], require: Require) -> None:
        """Rejects values of other config keys that the objective does not support. values: by key ("model.prior")."""
        name = values["objective.name"]
        require(values["model.prior"] == "normal", "model.prior", f"'normal' for objective.name = {name!r}")
        if values["objective.auto_beta"]:
            require(hasattr(cls, "auto_beta"), "objective.auto_beta", f"0 for objective.name = {name!r}")
            allowed = "0 where objective.auto_beta is above 0"
            require(values["objective.warmup_beta"] == 0, "objective.warmup_beta", allowed)

    @classmethod
    def remedy(cls, settings: Mapping[str, Any]) -> str:
        """Advice that makes reconstructions better."""
        return "lower the learning rate"

    @classmethod
    def elbo_beta(cls, settings: Mapping[str, Any]) -> float:
        """The weight of AE if the weight of the KL is 1: 1 / (noise variance per value) in the likelihood."""
        return settings["beta"] / settings["beta_kl"]

    @classmethod
    def levels(cls, settings: Mapping[str, Any]) -> dict[str, float]:
        """Constants, by name, that curves.png shows as horizontal lines unless they are logged as terms."""
        return {}

    @classmethod
    def describe(cls, record: Record) -> list[str]:
        """The objective's parts of a log line."""
        return [f"beta {record['beta']:.3g}"] if "beta" in record else []
