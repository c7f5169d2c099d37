"""Scores a run while it trains, so that the best checkpoint is known and kept."""

from collections.abc import Iterator
import dataclasses

import jax
import ml_collections
import numpy as np

from introvae_jax import model
from introvae_jax.data import source
from introvae_jax.evaluation import encoder_evaluation, image_sets, specs
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.extractors import Views
from introvae_jax.evaluation.results import Score
from introvae_jax.evaluation.set_evaluation import Comparison
from introvae_jax.training.stop import StopRequest


class Stopped(Exception):
    """A stop was asked for amid an evaluation."""


def ranked_by(config: ml_collections.ConfigDict) -> str:
    """The word of `config.eval.metrics` whose first figure tells which checkpoint is best."""
    return config.eval.best.strip() or specs.split(config.eval.metrics)[0]


class Scoring:
    """The figures of `config.eval`, of samples against training images and of held-out images.

    Raises UserError, before training starts, for weights that are missing and figures that cannot be had.
    """

    def __init__(self, config: ml_collections.ConfigDict, splits: source.Splits, workdir: str, stop: StopRequest):
        self._config, self._workdir, self._stop = config, workdir, stop
        data = config.data.to_dict()
        of_sets, of_encoder = specs.parse(config.eval.metrics)
        batch_size = min(64, config.batch_size)
        real = image_sets.of_split(splits, "train", "real", data, config.seed)
        held_out = image_sets.of_split(splits, "test", "held_out", data, config.seed)
        views = Views(inception_path=config.eval.inception, flag="--config.eval.inception")
        self._comparison = Comparison(
            of_sets, self._stoppable(real), model.example_shape(config), views,
            batch_size=batch_size, cache=Cache(real.stamp),
        )  # fmt: skip
        self._encoding = encoder_evaluation.Encoding(
            of_encoder, self._stoppable(held_out), config, batch_size=batch_size
        )
        self._best = ranked_by(config)

    def score(self, trained: model.Model) -> tuple[list[Score], float]:
        """The scores of a model and its rank, higher for a better one. Raises Stopped when a stop is asked for."""
        says = image_sets.describe(trained, self._workdir)
        with jax.default_matmul_precision("highest"):
            samples = self._stoppable(image_sets.of_model(trained, says, 0))
            scores = [*self._comparison.score(samples), *self._encoding.score(trained, says)]
        decisive = next(score for score in scores if score.request == self._best)
        return scores, decisive.value * (-1 if decisive.lower else 1)

    def _stoppable(self, images: image_sets.Images) -> image_sets.Images:
        def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
            for batch in images.batches(count, batch_size):
                if self._stop.requested is not None:
                    raise Stopped
                yield batch

        return dataclasses.replace(images, batches=batches)
