"""What objectives tell the rest of the package, beside their losses."""

import pytest

from configs import digits, toy2d
from introvae_jax import config as config_lib
from introvae_jax import objectives
from introvae_jax.errors import UserError


@pytest.mark.parametrize(("name", "beta"), [("introvae", 3.0), ("vae", 1.5), ("soft_introvae", 1.5)])
def test_the_beta_of_likelihoods_is_that_of_a_kl_of_weight_one(name, beta):
    """IntroVAE's losses have no beta_kl; those of the others are divided by it."""
    settings = {"name": name, "beta": 3.0, "beta_kl": 2.0}
    assert objectives.kind(settings).elbo_beta(settings) == beta


def test_an_objective_of_another_version_has_the_defaults():
    assert objectives.kind({"name": "of_tomorrow"}) is objectives.Objective


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.prior": "normal"}, "model.prior = 'normal': must be 'sphere' for objective.name = 'age'"),
        ({"objective.warmup_steps": 5}, "objective.warmup_steps = 5: must be 0: age has no warm-up"),
    ],
)
def test_age_needs_a_sphere_and_no_warm_up(changes, words):
    config = digits.get_config("age")
    config_lib.validate(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=words):
        config_lib.validate(config)


def test_age_has_no_points():
    config = toy2d.get_config("8gaussians,vae")
    config.objective.name = "age"
    with pytest.raises(UserError, match="points on a circle cover no plane"):
        config_lib.validate(config)
