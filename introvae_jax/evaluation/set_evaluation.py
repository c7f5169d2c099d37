"""Metrics of image sets: generated images against real ones, from one pass over each set."""

from collections.abc import Mapping, Sequence
from typing import Any

from introvae_jax import progress
from introvae_jax.errors import UserError
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.extractors import FeatureExtractors
from introvae_jax.evaluation.image_sets import ImageSet, Part, accumulate
from introvae_jax.evaluation.results import Result
from introvae_jax.evaluation.specs import SetSpec


class SetEvaluation:
    """Scores sets of generated images against one real set. `read_real` reads the real set once.

    shape: of the generated images. generated: their number, None if unlimited.
    floor: also score two halves of the real images against each other. cache: keeps moments of real images on disk.
    Raises UserError for metrics that cannot be computed: too few images, a size they cannot take, missing weights.
    """

    def __init__(
        self, specs: Sequence[SetSpec], real: ImageSet, shape: tuple[int, ...], extractors: FeatureExtractors, *,
        generated: int | None = None, floor: bool = False, batch_size: int = 64, cache: Cache | None = None,
    ):  # fmt: skip
        self._real, self._floor, self._batch_size, self._cache = real, floor, batch_size, cache
        if specs and real.shape != shape:
            raise UserError(
                f"real images are {_size(real.shape)}, generated ones {_size(shape)}: a distance between the two would "
                "measure the resizing; --size=N resizes both to NxN"
            )
        self._specs = [(spec, self._count(spec, generated)) for spec in specs]
        names = dict.fromkeys(spec.metric.features for spec in specs)
        for name in names:
            extractors.require(name)
        with progress.phase("loading the feature extractors"):
            self._extractors = {name: extractors.make(name) for name in names}
        self._real_values: Mapping[Part, Any] = {}

    @property
    def generated(self) -> int:
        """The number of generated images that all metrics together need."""
        return max((count for _, count in self._specs), default=0)

    def _count(self, spec: SetSpec, generated: int | None) -> int:
        """The number of generated images for a metric."""
        metric = spec.metric
        try:
            metric.check_shape(self._real.shape)
        except ValueError as error:
            raise UserError(f"{metric.name}: {error}") from error
        there = {"generated": generated, "real": self._real.count if "real" in metric.images else None}
        known = {kind: number for kind, number in there.items() if number is not None}
        for kind, number in known.items():
            if number < metric.least:
                raise UserError(f"{metric.name} needs {metric.least:,} {kind} images or more, and there are {number:,}")
        limits = {kind: number for kind, number in known.items() if kind == "generated" or not spec.full}
        per_count = metric.images_per_count
        published = [] if spec.full and limits else [metric.default_count * per_count]
        count = spec.count * per_count if spec.count else min([*published, *limits.values()])
        label = spec.label(metric.name + "{}", count // per_count)
        for kind, limit in limits.items():
            if count > limit:
                fewer = spec.label(metric.name + "{}", limit // per_count)
                full = f", or {label}_full to compare with all of them" if kind == "real" and not metric.equal else ""
                raise UserError(
                    f"{label} needs {count:,} {kind} images, and there are {limit:,}: ask for {fewer}{full}"
                )
        return count // per_count * per_count

    def _real_parts(self, spec: SetSpec, count: int) -> dict[str, Part]:
        """The parts of the real set that a metric needs, by purpose."""
        metric, there = spec.metric, self._real.count or 0
        spans = {"real": (0, there if spec.full else count)} if "real" in metric.images else {}
        if self._floor:
            half = min(count, there // 2) // metric.images_per_count * metric.images_per_count
            if half < metric.least:
                raise UserError(f"--floor: {there:,} real images are too few to compute {metric.name} of two halves")
            spans |= {"one half": (0, half), "other half": (half, 2 * half)}
        return {use: Part(metric.features, metric.accumulator, *span) for use, span in spans.items()}

    def read_real(self) -> None:
        """Reads the real images, unless they were read before."""
        if self._real_values:
            return
        parts = [part for spec, count in self._specs for part in self._real_parts(spec, count).values()]
        cached = {} if self._cache is None else self._cache.load(parts, self._extractors)
        missing = [part for part in dict.fromkeys(parts) if part not in cached]
        found = self._accumulate(self._real, missing, "reading real images")
        if self._cache is not None:
            self._cache.save(found, self._extractors)
        self._real_values = {**cached, **found}

    def score(self, generated: ImageSet) -> list[Result]:
        """Computes the metrics of generated images, in the order of the specs."""
        self.read_real()
        parts = [Part(s.metric.features, s.metric.accumulator, 0, count) for s, count in self._specs]
        values = self._accumulate(generated, list(dict.fromkeys(parts)), "generating images")
        results = []
        for (spec, count), part in zip(self._specs, parts, strict=True):
            with progress.phase(f"computing {spec.name}"):
                results += self._results(spec, count, values[part], generated)
        return results

    def _results(self, spec: SetSpec, count: int, value: Any, generated: ImageSet) -> list[Result]:
        metric, parts = spec.metric, self._real_parts(spec, count)
        real, floors = None, {}
        protocol = {
            **self._extractors[metric.features].metadata, "definition": metric.definition, "range": "uint8, 0 to 255",
            "images_generated": count, **generated.metadata,
        }  # fmt: skip
        if "real" in parts:
            real = self._real_values[parts["real"]]
            protocol |= {"images_real": parts["real"].stop}
        if parts:
            protocol |= self._real.metadata
        if self._floor:
            halves = (self._real_values[parts[half]] for half in ("one half", "other half"))
            floors = metric.compute(*halves)
            protocol["images_floor"] = parts["one half"].stop
        label = count // metric.images_per_count
        return [
            Result(spec.word, spec.label(name, label), found, metric.direction(name), floors.get(name), protocol)
            for name, found in metric.compute(real, value).items()
        ]

    def _accumulate(self, images: ImageSet, parts: Sequence[Part], title: str) -> dict[Part, Any]:
        return accumulate(images, parts, self._extractors, batch_size=self._batch_size, title=title)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"
