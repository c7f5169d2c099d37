"""Evaluates metrics of the encoder: on held-out images, and on images of another kind (out of distribution)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from introvae_jax import objectives, progress
from introvae_jax.errors import UserError
from introvae_jax.evaluation.extractors import make_lpips
from introvae_jax.evaluation.image_sets import ImageSet
from introvae_jax.evaluation.results import Result
from introvae_jax.evaluation.specs import EncoderSpec
from introvae_jax.metrics.base import Encoded, EncoderMetric, Rows
from introvae_jax.model import Model


class EncoderEvaluation:
    """Scores models on `held_out` images; `outside` are images of another kind, for "ood".

    config: of the models. seed: of the noise that metrics draw.
    Raises UserError for metrics that cannot be computed: too few images, a prior without density, no fixed beta, no
    `outside` images.
    """

    def __init__(
        self, specs: Sequence[EncoderSpec], held_out: ImageSet, config: Mapping[str, Any], *,
        outside: ImageSet | None = None, seed: int = 0, batch_size: int = 64,
    ):  # fmt: skip
        self._held_out, self._outside, self._seed, self._batch_size = held_out, outside, seed, batch_size
        self._specs = [(spec, self._count(spec, config)) for spec in specs]
        settings = config["objective"]
        self._beta = objectives.kind(settings).elbo_beta(settings)
        self._lpips = make_lpips(held_out.shape) if any(spec.metric.uses_lpips for spec in specs) else None

    def _count(self, spec: EncoderSpec, config: Mapping[str, Any]) -> int:
        """The number of held-out images for a metric."""
        metric, there = spec.metric, self._held_out.count or 0
        count = spec.count or min(there, metric.default_count or there)
        if count > there:
            fewer = f"{metric.name}{there}"
            raise UserError(f"{spec.word} needs {count:,} held-out images, and there are {there:,}: ask for {fewer}")
        if count < metric.least:
            raise UserError(f"{metric.name} needs {metric.least} held-out images or more")
        if metric.normal_prior and config["model"]["prior"] != "normal":
            raise UserError(f"{metric.name}: a model with model.prior = 'sphere' defines no density of images")
        if metric.normal_prior and config["objective"].get("auto_beta"):
            raise UserError(
                f"{metric.name}: a model trained with objective.auto_beta has no fixed beta, which it needs"
            )
        if "outside" in metric.images and self._outside is None:
            raise UserError(f"{metric.name}: name images of another kind with --ood=DIR")
        return count

    def score(self, trained: Model, metadata: Mapping[str, Any]) -> list[Result]:
        """Computes the metrics, in the order of the specs. metadata: of the model, for records."""
        rows = self._encode(trained, self._held_out, self._specs, "encoding held-out images")
        others: list[Rows] = [{} for _ in self._specs]
        if self._outside is not None:
            everything = self._outside.count or 0
            taking = [(spec, everything if "outside" in spec.metric.images else 0) for spec, _ in self._specs]
            others = self._encode(trained, self._outside, taking, "encoding images from outside")
        results = []
        for (spec, count), found, outside in zip(self._specs, rows, others, strict=True):
            protocol = self._protocol(spec.metric, count, trained, metadata)
            for name, value in spec.metric.reduce(found, outside).items():
                network = self._lpips.metadata if self._lpips is not None and name == "lpips" else {}
                direction = spec.metric.direction(name)
                results.append(Result(spec.word, name, float(value), direction, None, {**protocol, **network}))
        return results

    def _protocol(
        self, metric: EncoderMetric, count: int, trained: Model, metadata: Mapping[str, Any]
    ) -> dict[str, Any]:
        protocol = {
            "definition": metric.definition.format(z_dim=trained.z_dim, beta=self._beta), "images_held_out": count,
            "range": "0 to 1", "model": dict(metadata), **self._held_out.metadata,
        }  # fmt: skip
        if metric.seeded:
            protocol["seed"] = self._seed
        if "outside" in metric.images and self._outside is not None:
            protocol |= {"images_outside": self._outside.count, **self._outside.metadata}
        return protocol

    def _encode(
        self, trained: Model, images: ImageSet, taking: Sequence[tuple[EncoderSpec, int]], title: str
    ) -> list[Rows]:
        """The rows that each metric keeps of its images, from one pass over them."""
        kept: list[dict[str, list[np.ndarray]]] = [{} for _ in taking]
        place, last = 0, max((count for _, count in taking), default=0)
        with progress.phase(title, last, "images") as encoding:
            for batch in images.batches(last, self._batch_size):
                encoded = self._encoded(trained, batch, place)
                for (spec, count), rows in zip(taking, kept, strict=True):
                    if count > place:
                        for name, values in spec.metric.per_image(encoded).items():
                            rows.setdefault(name, []).append(values[: count - place])
                place += len(batch)
                encoding.advance(len(batch))
        return [{name: np.concatenate(parts) for name, parts in rows.items()} for rows in kept]

    def _encoded(self, trained: Model, batch: np.ndarray, first: int) -> Encoded:
        x = batch / np.float32(255)
        mu, logvar = trained.encode(x)
        lpips = None if self._lpips is None else self._lpips.distance
        return Encoded(
            x, mu, logvar, lambda z: trained.decode(z, posterior=True, clip=False),
            beta=self._beta, seed=self._seed, first=first, lpips=lpips,
        )  # fmt: skip
