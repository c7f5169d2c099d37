"""The metric of docs/extending.md, taken word for word; and each metric has its row in docs/evaluation.md."""

import json
import pathlib
import re

import numpy as np
import pytest
from small import blobs, write

from configs import digits
from introvae_jax import config as config_lib
from introvae_jax import metrics
from introvae_jax.data import source
from introvae_jax.errors import UserError
from introvae_jax.evaluation import evaluator, specs
from introvae_jax.model import Model
from introvae_jax.training.scoring import Scoring
from introvae_jax.training.stop import StopRequest

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"


@pytest.fixture
def color(monkeypatch):
    """The registry has the page's metric too."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.S)
    (code,) = (block for block in blocks if "SetMetric(" in block)
    names = {"__name__": "color"}
    exec(code, names)
    monkeypatch.setitem(metrics.METRICS, "color", names["COLOR"])


def test_the_metric_of_the_page_compares_folders(color, tmp_path):
    real, fake = blobs(9, 0), blobs(12, 1)
    folders = {name: str(write(tmp_path / name, images)) for name, images in (("real", real), ("fake", fake))}
    out = tmp_path / "record.json"
    options = evaluator.Options(["color", "color5_full"], **folders, floor=True, batch_size=4, out=str(out))
    table, _ = evaluator.evaluate(options)
    assert "| color9 " in table and "| color5_full " in table and "Euclidean distance of mean colours" in table
    found = {value["name"]: value for value in json.loads(out.read_text())["figures"]}
    assert found["color9"]["protocol"]["images_real"] == found["color5_full"]["protocol"]["images_real"] == 9
    orders = [np.random.default_rng(0).permutation(n) for n in (9, 12)]
    means = [np.float64(x)[order[:9]].mean(axis=(0, 1, 2)) for x, order in zip((real, fake), orders, strict=True)]
    assert found["color9"]["value"] == pytest.approx(np.sqrt(np.sum((means[0] - means[1]) ** 2)), rel=1e-12)
    assert found["color9"]["floor"] > 0 and found["color9"]["lower_is_better"]


def test_it_scores_and_ranks_checkpoints(color):
    config = digits.get_config("vae")
    config.eval.every, config.eval.metrics = 10, ("color4",)
    config_lib.validate(config)

    class Black(Model):
        def __init__(self):
            self.config, self.step, self.weights = config, 1, "ema"

        def sample(self, num, seed=0):
            return np.zeros((num, 32, 32, 1), np.float32)

    splits = source.open_splits(config.data)
    results, rank = Scoring(config, splits, "RUN", StopRequest()).score(Black())
    assert [result.name for result in results] == ["color4"]
    assert rank == -results[0].value < 0


def test_without_its_line_it_is_no_metric():
    with pytest.raises(UserError, match="'color' is no metric"):
        specs.parse(["color"])


def test_each_metric_is_in_the_docs():
    rows = "\n".join(line for line in (DOCS / "evaluation.md").read_text().splitlines() if line.startswith("| `"))
    for metric in metrics.METRICS.values():
        assert f"`{metric.name}`" in rows
