"""Presets against their sources: the authors' scripts and code, whose own arithmetic is written out here."""

import pytest

from configs import celebahq
from introvae_jax.planning import program

# Parameters of encoder and decoder. The released scripts build theirs with 1x1 convolutions between equal counts.
RELEASED = {"256,released": (22_973_600, 16_452_963), "1024,released": (27_969_616, 21_428_147)}
PAPER = {"256": (22_711_456, 16_190_819), "1024": (27_445_328, 20_903_859)}


@pytest.mark.parametrize("argument", [*RELEASED, *PAPER])
def test_parameter_counts_of_celebahq(argument):
    assert program.parameters(celebahq.get_config(argument)) == (RELEASED | PAPER)[argument]


@pytest.mark.parametrize("argument", RELEASED)
def test_the_released_code_updates_alternately(argument):
    assert celebahq.get_config(argument).objective.update_order == "alternating"


def test_the_released_warm_up_at_1024():
    """--num_vae=4 --trainsize=29000 --batchSize=12: a VAE with rec + kl, where rec is the squared error without 1/2."""
    objective = celebahq.get_config("1024,released").objective
    assert (objective.beta, objective.warmup_beta) == (2 * 0.01, 2.0)
    assert objective.warmup_steps == 4 * 2_417  # an epoch's last batch has 8 images and counts
