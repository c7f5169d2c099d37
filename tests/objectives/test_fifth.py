"""The objective of docs/extending.md, taken word for word."""

import pathlib
import re

import jax
import numpy as np

from configs import digits
import introvae_jax
from introvae_jax import objectives
from introvae_jax.training import train_loop

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "extending.md"


def test_the_objective_of_the_page_trains_and_samples(tmp_path, monkeypatch):
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "FreeBits" in block)
    names = {"__name__": "free_bits"}
    exec(code, names)
    monkeypatch.setitem(objectives.OBJECTIVES, "free_bits", names["FreeBits"])
    config = digits.get_config()
    config.objective.name, config.objective.warmup_steps = "free_bits", 0
    config.steps, config.batch_size, config.model.channels = 4, 8, (4, 4, 8)
    config.checkpoint.every, config.checkpoint.calibration_batches = 4, 2
    train_loop.train(config, tmp_path / "run")
    assert introvae_jax.load(tmp_path / "run").sample(2).shape == (2, 32, 32, 1)


def test_its_first_nats_are_free():
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "FreeBits" in block)
    names = {"__name__": "free_bits"}
    exec(code, names)
    objective = names["FreeBits"](beta=1.0, margin=5.0)
    mu = np.float32([[1.0, 1.0], [3.0, 3.0]])  # KL 1 and 9 with unit variance
    batch = objectives.base.Batch(*(jax.numpy.zeros((2, 2)),) * 5)
    loss, _ = objective.encoder_loss(lambda _: (mu, np.zeros_like(mu)), lambda z: 0 * z, batch, jax.numpy.mean)
    assert float(loss) == (5 + 9) / 2
