"""Scores checkpoints during training, so that the best one is known and kept."""

from collections.abc import Iterator
import dataclasses

import jax
import ml_collections
import numpy as np

from introvae_jax import model
from introvae_jax.data import source
from introvae_jax.evaluation import image_sets, specs
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.encoder_evaluation import EncoderEvaluation
from introvae_jax.evaluation.extractors import FeatureExtractors
from introvae_jax.evaluation.results import Result
from introvae_jax.evaluation.set_evaluation import SetEvaluation
from introvae_jax.experiment import example_shape
from introvae_jax.training.stop import StopRequest


class Stopped(Exception):
    """A stop was requested during an evaluation."""


def ranked_by(config: ml_collections.ConfigDict) -> str:
    """The spec among `config.eval.metrics` whose first value ranks checkpoints."""
    return config.eval.best.strip() or specs.split(config.eval.metrics)[0]


class Scoring:
    """Computes the metrics of `config.eval`: of samples against training images, and on held-out images.

    Raises UserError, before training starts, for missing weights and metrics that cannot be computed.
    """

    def __init__(self, config: ml_collections.ConfigDict, splits: source.Splits, workdir: str, stop: StopRequest):
        self._config, self._workdir, self._stop = config, workdir, stop
        data = config.data.to_dict()
        of_sets, of_encoder = specs.parse(config.eval.metrics)
        batch_size = min(64, config.batch_size)
        real = image_sets.from_split(splits, "train", "real", data, config.seed)
        held_out = image_sets.from_split(splits, "test", "held_out", data, config.seed)
        extractors = FeatureExtractors(inception_path=config.eval.inception, flag="--config.eval.inception")
        self._of_sets = SetEvaluation(
            of_sets, self._stoppable(real), example_shape(config), extractors,
            batch_size=batch_size, cache=Cache(real.cache_key),
        )  # fmt: skip
        self._of_encoder = EncoderEvaluation(of_encoder, self._stoppable(held_out), config, batch_size=batch_size)
        self._best = ranked_by(config)

    def score(self, trained: model.Model) -> tuple[list[Result], float]:
        """The results and the rank of a model; a higher rank is better. Raises Stopped if a stop is requested."""
        metadata = image_sets.model_metadata(trained, self._workdir)
        with jax.default_matmul_precision("highest"):
            samples = self._stoppable(image_sets.from_model(trained, metadata, 0))
            results = [*self._of_sets.score(samples), *self._of_encoder.score(trained, metadata)]
        decisive = next(result for result in results if result.spec == self._best)
        return results, decisive.value * (-1 if decisive.lower_is_better else 1)

    def _stoppable(self, images: image_sets.ImageSet) -> image_sets.ImageSet:
        def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
            for batch in images.batches(count, batch_size):
                if self._stop.requested is not None:
                    raise Stopped
                yield batch

        return dataclasses.replace(images, batches=batches)
