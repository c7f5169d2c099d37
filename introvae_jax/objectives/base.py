"""What an objective is: two losses over the same noise, one for each network, and what the rest needs to know of it.

An objective is a frozen dataclass of the class `Objective` (its fields are the keys of `config.objective` that it
reads) with

    encoder_loss(encode, decode, batch, mean) -> (loss, (z, terms))
    decoder_loss(encode, decode, batch, z, mean) -> (loss, terms)

encode: images -> (mu, logvar), a function, or one that is a tree of its parameters (shared_gradient.py says why).
decode: latents -> images. mean: [B, ...] -> [...], the mean over the GLOBAL batch. z: the latents of the real images,
handed on so that they are encoded once. terms: scalars by name, for the log; "loss_rec", half the squared error, is
always one of them. The step differentiates the first loss with respect to the encoder's parameters and the second with
respect to the decoder's, nothing else.

All that other packages do differently for an objective is a member of `Objective` too, with a default: what it requires
of other config values, its health rules, its panels among the curves, its part of a log line, its beta.
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
Record = Mapping[str, float]  # of metrics.jsonl: terms by name, means over the steps since the record before
Require = Callable[[bool, str, str], None]  # (ok, config key, what is allowed): raises UserError unless ok


@dataclasses.dataclass(frozen=True)
class Facts:
    """What health rules know of a run. objective: `config.objective`. constant_error: loss_rec of the mean image."""

    objective: Mapping[str, Any]
    constant_error: float


PATIENCE = 10  # records until a run should have learnt anything at all, of the warm-up or of what follows it
Rule = Callable[[Sequence[Record], Facts], str | None]  # records so far -> advice, None if the rule does not hold


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


class Objective:
    """The base class. A subclass has the two losses; the other members are for the rest of the package.

    has_warmup: True if `objective.warmup_steps` as a plain VAE may come first. rules: of reporting/health.py, for this
    objective alone. panels: terms that share a panel of curves.png, by title.
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
        """The encoder's loss, the latents of the real images, and terms for the log."""
        raise NotImplementedError

    def decoder_loss(
        self, encode: Encode, decode: Decode, batch: Batch, z: jax.Array, mean: Mean
    ) -> tuple[jax.Array, Terms]:
        """The decoder's loss, and terms for the log."""
        raise NotImplementedError

    @classmethod
    def check(cls, values: Mapping[str, Any], require: Require) -> None:
        """Rejects values of other config keys that the objective cannot train with. values: by key, "model.prior"."""
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
        """The weight of AE where that of the KL is one: one over the variance of a value's noise in the likelihood."""
        return settings["beta"] / settings["beta_kl"]

    @classmethod
    def levels(cls, settings: Mapping[str, Any]) -> dict[str, float]:
        """Constants that curves.png shows as lines, by name, unless they are logged as terms."""
        return {}

    @classmethod
    def describe(cls, record: Record) -> list[str]:
        """The objective's parts of a line of the log."""
        return [f"beta {record['beta']:.3g}"] if "beta" in record else []
