"""A tiny run with two checkpoints, trained once and copied by each test."""

import pathlib
import shutil

import numpy as np
import pytest
from tiny_run import config

from introvae_jax.training import train_loop
from introvae_jax.training.calibrate import Calibration


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A work directory with checkpoints of steps 2 and 4; read only."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    statistics = {"mean": np.arange(1000, dtype=np.float32)}  # its networks have no BatchNorm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Calibration, "statistics", lambda self, state, *weights: dict.fromkeys(weights, statistics))
        assert train_loop.train(config(), workdir)
    return workdir


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of it."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
