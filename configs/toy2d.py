"""Two-dimensional densities with fully connected networks (argument: density, objective, size of the job).

    python -m introvae_jax.main --config=configs/toy2d.py                             8gaussians,introvae
    python -m introvae_jax.main --config=configs/toy2d.py:checkerboard,soft_introvae
    python -m introvae_jax.main --config=configs/toy2d.py:rings,soft_introvae,published

Densities: 8gaussians, 2spirals, checkerboard, rings. Objectives: introvae, soft_introvae, vae. The weights of vae
and soft_introvae are those that Soft-IntroVAE published; IntroVAE's were found here (docs/toy2d.md). "published"
takes Soft-IntroVAE's networks, batch, rate and number of steps too; without it all are smaller, for two cores.
"""

import ml_collections

from configs import default
from introvae_jax.objectives import presets

OBJECTIVES = ("vae", "introvae", "soft_introvae")

# beta, margin in nats, alpha and alpha_d of IntroVAE.
INTROVAE = {
    "8gaussians": (10.0, 3.0, 1.0, 1.0),
    "2spirals": (5.0, 3.5, 1.0, 1.0),
    "checkerboard": (2.0, 3.5, 1.0, 1.0),
    "rings": (4.0, 4.0, 1.0, 1.0),
}

JOBS = {
    "small": {
        "steps": 4_000, "batch_size": 256, "model.width": 128, "model.depth": 3, "objective.warmup_steps": 800,
        "optim.learning_rate": 1e-3, "optim.schedule": "cosine",
    },
    "published": {
        "steps": 30_000, "batch_size": 512, "model.width": 256, "model.depth": 4, "objective.warmup_steps": 2_000,
        "optim.learning_rate": 2e-4, "optim.schedule": "step", "optim.decay_steps": (10_000, 15_000),
    },
}  # fmt: skip


def get_config(argument: str = "8gaussians") -> ml_collections.ConfigDict:
    density, objective, job, *more = *argument.split(","), "", ""
    objective, job = objective or "introvae", job or "small"
    if density not in INTROVAE or objective not in OBJECTIVES or job not in JOBS or any(more):
        raise ValueError(
            f"toy2d.py:{argument}: DENSITY,OBJECTIVE,JOB, the last two if you like; densities are "
            f"{', '.join(INTROVAE)}, objectives {', '.join(OBJECTIVES)}, jobs {', '.join(JOBS)}"
        )
    config = default.get_config()
    config.update_from_flattened_dict(JOBS[job])
    config.data.source = "density"
    config.data.name = density
    config.data.cache = "device"
    config.model.network = "mlp"
    config.model.norm = "none"
    config.model.z_dim = 2
    config.objective.name = objective
    config.objective.update_order = "alternating"
    if objective == "introvae":
        beta, margin, alpha, alpha_d = INTROVAE[density]
        config.objective.update({"beta": beta, "margin": margin, "alpha": alpha, "alpha_d": alpha_d})
    elif objective == "soft_introvae":
        config.objective.beta_kl, beta_rec, config.objective.beta_neg = presets.DENSITY_SOFT[density]
        config.objective.beta, config.objective.gamma = 2 * beta_rec, 1e-8
        if job == "published":
            config.optim.epsilon = presets.soft_epsilon(values=2)
    else:
        config.objective.beta_kl, beta_rec = presets.DENSITY_VAE[density]
        config.objective.beta = 2 * beta_rec
    config.log.every = 250
    config.log.pictures_every = config.checkpoint.every = config.steps // 4
    return config
