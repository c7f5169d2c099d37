"""Published settings in our names, and how the names translate.

    ours           paper (eq. 11, 12)    released code of the authors (2019)
    alpha          alpha                 weight_neg / 2, on each of the two hinges
    alpha_d        alpha                 1/2, on each of the two KL terms
    beta           beta                  2 weight_rec (its squared error carries no 1/2)
    margin         m                     m_plus
    warmup_epochs  -                     num_vae

The paper alternates the updates (algorithm 1). The released code takes both losses from one forward
pass and updates the encoder in place before the decoder's backward pass; "simultaneous" is that
without the in-place change. Both hinge the batch's mean KL in their code; the paper's text leaves it open.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Preset:
    """objective: values for `config.objective`. batch_size in images, warmup_epochs in passes over the data."""

    objective: Mapping[str, Any]
    z_dim: int
    batch_size: int
    warmup_epochs: int = 0


def _paper(margin: float, beta: float, z_dim: int, batch_size: int) -> Preset:
    objective = {"alpha": 0.25, "alpha_d": 0.25, "beta": beta, "margin": margin,
                 "hinge": "batch", "update_order": "alternating"}  # fmt: skip
    return Preset(objective, z_dim, batch_size)


def _released(
    margin: float, weight_rec: float, weight_neg: float, z_dim: int, batch_size: int, warmup_epochs: int
) -> Preset:
    objective = {"alpha": weight_neg / 2, "alpha_d": 0.5, "beta": 2 * weight_rec, "margin": margin,
                 "hinge": "batch", "update_order": "simultaneous"}  # fmt: skip
    return Preset(objective, z_dim, batch_size, warmup_epochs)


# The paper's batch sizes are not published; those of the released code stand in for them.
CELEBAHQ = {
    ("128", "paper"): _paper(margin=110, beta=0.5, z_dim=256, batch_size=16),
    ("256", "paper"): _paper(margin=120, beta=0.05, z_dim=512, batch_size=16),
    ("1024", "paper"): _paper(margin=90, beta=0.0025, z_dim=512, batch_size=12),
    ("256", "released"): _released(
        margin=120, weight_rec=0.05, weight_neg=0.5, z_dim=512, batch_size=16, warmup_epochs=0
    ),
    ("1024", "released"): _released(
        margin=500, weight_rec=0.01, weight_neg=1.0, z_dim=512, batch_size=12, warmup_epochs=4
    ),
}


def celebahq(resolution: str, preset: str) -> Preset:
    """The settings for CelebA-HQ. Raises ValueError that lists the choices for any other pair."""
    if (resolution, preset) not in CELEBAHQ:
        choices = ", ".join(f"{r},{p}" for r, p in CELEBAHQ)
        raise ValueError(f"celebahq.py:{resolution},{preset}: no such settings; there are {choices}")
    return CELEBAHQ[resolution, preset]
