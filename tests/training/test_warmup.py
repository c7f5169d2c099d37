"""Which beta and margin each step trains with, read off the log: loss_encoder of a VAE is kl_real + beta * loss_rec."""

import json

import pytest

from configs import digits, toy2d
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


def test_an_automatic_beta_holds_from_the_first_step_and_a_relative_margin_after_the_warm_up(tmp_path):
    config = digits.get_config()
    config.steps, config.batch_size, config.model.channels, config.model.z_dim = 4, 8, (4, 4, 8), 4
    config.log.every, config.log.pictures_every, config.checkpoint.every = 1, 1000, 1000
    config.checkpoint.calibration_batches, config.objective.warmup_steps = 2, 2
    config.objective.auto_beta, config.objective.margin_offset = 2.5, 3.0
    train_loop.train(config, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["beta"] * record["loss_rec"] for record in records] == pytest.approx([2.5 * 32] * 4, rel=1e-3)
    above = [record["margin"] - record["kl_real"] for record in records if "margin" in record]
    assert above == pytest.approx([3.0] * 2, rel=1e-4)
    assert "margin" not in records[1]
    assert f"| beta {records[-1]['beta']:.3g} |" in (tmp_path / "log.txt").read_text()
