"""Published settings as config values. The table translates the names.

    ours           IntroVAE paper        its authors' code (2019)         Soft-IntroVAE   AGE's code
                   (eq. 11, 12)
    alpha          alpha                 weight_neg / 2, on each hinge
    alpha_d        alpha                 1/2, on each of two KL terms
    beta           beta                  2 weight_rec (no 1/2 there)      2 beta_rec
    margin         m                     m_plus
    beta_kl                                                               beta_kl
    beta_neg                                                              beta_neg
    gamma                                                                 gamma_r
    match_x                                                                               2 match_x
    match_z                                                                               match_z / Z
    warmup_beta    -                     2 in the epochs of num_vae
    warmup_epochs  -                     num_vae                          num_vae

IntroVAE. The paper (algorithm 1) and the released code update alternately: the decoder's loss encodes the generated
images with the updated encoder. The code applies the hinge to the batch's mean KL; the paper does not specify it. The
code reads channel counts by int(x) and compares them by identity, which is false for equal counts above 256. Therefore
its networks, and the weights that it saves, have a 1x1 convolution in the blocks between two stages of 512 channels.
The paper's networks have none. The code's warm-up minimises rec + kl for every weight_rec.

Soft-IntroVAE. Its losses are divided here by its s, which is one over the number of values of an image. Adam's epsilon
is 1e-8 / s, so that the steps are equal. The code does not multiply the loss of the warm-up by s. The presets have no
warm-up; in toy2d.py, Adam's moments and its epsilon in the warm-up differ from the code's by that factor, 2. The code
lets the encoder's gradient pass through the reconstruction that is reconstructed again; the paper and this project
treat it as a constant. The code draws new noise for the latents of generated images in the decoder's half of a step;
here both halves share it, and it reaches the decoder through gamma = 1e-8 only. Its README swaps beta_rec and beta_kl
of CelebA-HQ; the values here are those of its main.py. For MNIST, which has no config here, it uses beta_rec 1, beta_kl
1, z 32 and batch 128; beta_neg is 128, the correction that its author gives in issue 11 of its repository.

AGE. Its images are in [-1, 1], hence 2 match_x. It averages the cosine over the Z dimensions, hence match_z / Z. It
draws new samples for each decoder update; here the first decoder update uses the encoder's samples. Its KL of the batch
uses the variance where the paper, and this project, use the standard deviation. On the unit sphere the gradient of its
KL is about twice ours (2.02 at Z = 128), so the published match_x and match_z have about double weight here. It halves
the learning rate every drop_lr epochs. The published CIFAR-10 run ends after 150 epochs (117,150 steps); the run of
cifar10.py is longer.

Each config sets its own number of steps. Most configs compute in bfloat16; the released codes compute in float32.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import ml_collections


@dataclasses.dataclass(frozen=True)
class Preset:
    """Published settings. objective, model, optim: values for these sections of the config.

    batch_size: in images. warmup_epochs: epochs of the warm-up as a VAE. decay_epochs: epochs at which the learning
    rate is multiplied by optim.decay_factor; they may lie after a config's last step. last_batch: True if an epoch ends
    with a smaller batch, which counts as a step. per_value: True if the published losses are divided by the number of
    values of an image.
    """

    objective: Mapping[str, Any]
    z_dim: int
    batch_size: int
    warmup_epochs: int = 0
    decay_epochs: tuple[int, ...] = ()
    last_batch: bool = True
    per_value: bool = False
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optim: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def apply(self, config: ml_collections.ConfigDict, images: int) -> None:
        """Sets the values in `config`. images: number of training images, which defines an epoch."""
        steps = math.ceil(images / self.batch_size) if self.last_batch else images // self.batch_size
        config.batch_size, config.model.z_dim = self.batch_size, self.z_dim
        config.model.update(self.model)
        config.objective.update(self.objective)
        config.objective.warmup_steps = self.warmup_epochs * steps
        config.optim.update(self.optim)
        if self.per_value:
            config.optim.epsilon = soft_epsilon(config.data.size**2 * config.data.channels)
        if self.decay_epochs:
            config.optim.schedule = "step"
            config.optim.decay_steps = tuple(epoch * steps for epoch in self.decay_epochs)


def soft_epsilon(values: int) -> float:
    """Adam's epsilon for our losses, which are Soft-IntroVAE's times `values`; the steps are then equal."""
    return 1e-8 * values


def _paper(margin: float, beta: float, z_dim: int, batch_size: int) -> Preset:
    objective = {"name": "introvae", "alpha": 0.25, "alpha_d": 0.25, "beta": beta, "margin": margin,
                 "hinge": "batch", "update_order": "alternating"}  # fmt: skip
    return Preset(objective, z_dim, batch_size)


def _released(
    margin: float, weight_rec: float, weight_neg: float, z_dim: int, batch_size: int, warmup_epochs: int
) -> Preset:
    objective = {"name": "introvae", "alpha": weight_neg / 2, "alpha_d": 0.5, "beta": 2 * weight_rec,
                 "margin": margin, "hinge": "batch", "update_order": "alternating", "warmup_beta": 2.0}  # fmt: skip
    return Preset(objective, z_dim, batch_size, warmup_epochs, model={"expand_equal": True})


def _soft(beta_rec: float, beta_kl: float, beta_neg: float, z_dim: int, batch_size: int) -> Preset:
    objective = {"name": "soft_introvae", "beta": 2 * beta_rec, "beta_kl": beta_kl, "beta_neg": beta_neg,
                 "gamma": 1e-8, "update_order": "alternating"}  # fmt: skip
    return Preset(objective, z_dim, batch_size, decay_epochs=(350,), per_value=True)


def _age(match_x: float, match_z: float, z_dim: int, batch_size: int, decay_epochs: tuple[int, ...]) -> Preset:
    objective = {"name": "age", "match_x": 2 * match_x, "match_z": match_z / z_dim, "decoder_updates": 2,
                 "update_order": "alternating"}  # fmt: skip
    optim = {"beta1": 0.5, "decay_factor": 0.5}
    return Preset(objective, z_dim, batch_size, decay_epochs=decay_epochs, last_batch=False, optim=optim)


# The paper does not give batch sizes; these are the released code's.
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
    ("256", "soft_introvae"): _soft(beta_rec=0.5, beta_kl=1.0, beta_neg=1024, z_dim=256, batch_size=8),
}

# AGE's batch is the default of its command. Its rate falls before epochs 39, 79 and 119, counted from 0 (drop_lr 40).
CIFAR10 = {
    "soft_introvae": _soft(beta_rec=1.0, beta_kl=1.0, beta_neg=256, z_dim=128, batch_size=32),
    "age": _age(match_x=10, match_z=1000, z_dim=128, batch_size=64, decay_epochs=(39, 79, 119)),
}

# Soft-IntroVAE's 2-D densities: beta_kl, beta_rec, beta_neg; and its plain VAE there: beta_kl, beta_rec.
DENSITY_SOFT = {
    "8gaussians": (0.3, 0.2, 0.9),
    "2spirals": (0.5, 0.2, 1.0),
    "checkerboard": (0.1, 0.2, 0.2),
    "rings": (0.2, 0.2, 1.0),
}
DENSITY_VAE = {"8gaussians": (0.05, 0.8), "2spirals": (0.05, 1.0), "checkerboard": (0.1, 0.8), "rings": (0.05, 0.8)}


def celebahq(resolution: str, preset: str) -> Preset:
    """The settings for CelebA-HQ. Raises ValueError that lists the choices for any other pair."""
    if (resolution, preset) not in CELEBAHQ:
        choices = ", ".join(f"{r},{p}" for r, p in CELEBAHQ)
        raise ValueError(f"{resolution},{preset}: no such settings; choose one of {choices}")
    return CELEBAHQ[resolution, preset]
