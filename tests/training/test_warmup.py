"""Which beta each step trains with, read off the log: loss_encoder of a VAE is kl_real + beta * loss_rec."""

import json

import pytest

from configs import toy2d
from introvae_jax.training import train_loop


@pytest.mark.parametrize(("warmup_beta", "expected"), [(0.0, [2, 2, 2, 2]), (8.0, [8, 8, 2, 2])])
def test_the_warm_up_has_a_beta_of_its_own(warmup_beta, expected, tmp_path):
    config = toy2d.get_config("8gaussians,vae")
    config.steps, config.batch_size, config.model.width, config.model.depth = 4, 8, 8, 1
    config.log.every, config.log.pictures_every, config.checkpoint.every = 1, 1000, 1000
    config.objective.beta_kl, config.objective.beta = 1.0, 2.0
    config.objective.warmup_steps, config.objective.warmup_beta = 2, warmup_beta
    train_loop.train(config, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    betas = [(record["loss_encoder"] - record["kl_real"]) / record["loss_rec"] for record in records]
    assert betas == pytest.approx(expected, rel=1e-3)
