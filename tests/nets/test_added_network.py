"""The network of docs/extending.md, taken word for word."""

import pathlib
import re

import numpy as np
import pytest

from configs import digits
import introvae_jax
from introvae_jax import nets
from introvae_jax.errors import UserError
from introvae_jax.training import train_loop

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "extending.md"


@pytest.fixture
def strided(monkeypatch):
    """The registry has the page's network too."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (code,) = (block for block in blocks if "nn.Module" in block)
    names = {"__name__": "strided"}
    exec(code, names)
    monkeypatch.setitem(nets.NETWORKS, "strided", nets.Network(names["build"]))
    return monkeypatch


def configured():
    config = digits.get_config("vae")
    config.model.network, config.model.norm, config.model.channels = "strided", "none", (4, 4, 8)
    config.objective.warmup_steps, config.steps, config.batch_size = 0, 4, 8
    config.checkpoint.every, config.checkpoint.calibration_batches = 2, 2
    return config


def test_the_network_of_the_page_trains_resumes_and_samples(strided, tmp_path):
    config = configured()
    config.steps = 2
    train_loop.train(config, tmp_path / "run")
    config.steps = 4
    train_loop.train(config, tmp_path / "run")
    model = introvae_jax.load(tmp_path / "run")
    assert model.step == 4
    images = model.sample(2)
    assert images.shape == model.reconstruct(images).shape == (2, 32, 32, 1)
    assert np.ptp(images) > 0
    strided.delitem(nets.NETWORKS, "strided")
    with pytest.raises(UserError, match=r"has 'strided' for model\.network: must be one of residual, mlp"):
        introvae_jax.load(tmp_path / "run")
