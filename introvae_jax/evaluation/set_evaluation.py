"""Generated images against real ones: every figure that was asked for, from one pass over each set."""

from collections.abc import Mapping, Sequence
from typing import Any

from introvae_jax import progress
from introvae_jax.errors import UserError
from introvae_jax.evaluation import streaming
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.extractors import Views
from introvae_jax.evaluation.image_sets import Images
from introvae_jax.evaluation.results import Score
from introvae_jax.evaluation.specs import OfSets
from introvae_jax.evaluation.streaming import Take

Values = Mapping[tuple, Any]  # (view, kind of collection, start, stop) -> what was collected


class Comparison:
    """Scores sets of generated images against one real set, which is looked at once, by `reference`.

    floor: also score two halves of the real images against each other. cache: keeps moments of real images on disk.
    Raises UserError for figures that cannot be had: too few images, a size they cannot take, missing weights.
    """

    def __init__(
        self, requests: Sequence[OfSets], real: Images, shape: tuple[int, ...], views: Views, *,
        generated: int | None = None, floor: bool = False, batch_size: int = 64, cache: Cache | None = None,
    ):  # fmt: skip
        self._real, self._floor, self._batch_size, self._cache = real, floor, batch_size, cache
        if requests and real.shape != shape:
            raise UserError(
                f"real images are {_size(real.shape)}, generated ones {_size(shape)}: a distance between the two would "
                "measure the resizing; --size=N brings both to NxN"
            )
        self._requests = [(request, self._count(request, generated)) for request in requests]
        names = dict.fromkeys(request.figure.view for request in requests)
        for name in names:
            views.require(name)
        with progress.phase("loading the feature extractors"):
            self._views = {name: views.make(name) for name in names}
        self._seen: Values = {}

    @property
    def generated(self) -> int:
        """How many generated images all figures together take."""
        return max((count for _, count in self._requests), default=0)

    def _count(self, request: OfSets, generated: int | None) -> int:
        """How many generated images the figure takes."""
        figure = request.figure
        try:
            figure.check(self._real.shape)
        except ValueError as error:
            raise UserError(f"{request.name}: {error}") from error
        there = {"generated": generated, "real": None if figure.alone else self._real.count}
        there = {kind: number for kind, number in there.items() if number is not None}
        for kind, number in there.items():
            if number < figure.least:
                raise UserError(
                    f"{request.name} needs {figure.least:,} {kind} images or more, and there are {number:,}"
                )
        limits = {kind: number for kind, number in there.items() if kind == "generated" or not request.whole}
        published = [] if request.whole and limits else [figure.count * figure.per_count]
        count = request.count * figure.per_count if request.count else min([*published, *limits.values()])
        label = request.label(request.name + "{}", count // figure.per_count)
        for kind, limit in limits.items():
            if count > limit:
                fewer = request.label(request.name + "{}", limit // figure.per_count)
                whole = f", or {label}_full to compare with all of them" if kind == "real" and not figure.equal else ""
                raise UserError(
                    f"{label} needs {count:,} {kind} images, and there are {limit:,}: ask for {fewer}{whole}"
                )
        return count // figure.per_count * figure.per_count

    def _real_parts(self, request: OfSets, count: int) -> dict[str, tuple]:
        """The parts of the real set that a figure needs, by what for."""
        figure, there = request.figure, self._real.count
        parts = {} if figure.alone else {"real": (0, there if request.whole else count)}
        if self._floor:
            half = min(count, there // 2) // figure.per_count * figure.per_count
            if half < figure.least:
                raise UserError(
                    f"--floor: {there:,} real images are too few for halves of which {request.name} can be had"
                )
            parts |= {"one half": (0, half), "other half": (half, 2 * half)}
        return {what: (figure.view, figure.collect, *part) for what, part in parts.items()}

    def reference(self) -> None:
        """Looks at the real images, unless that was done before."""
        if self._seen:
            return
        keys = [key for request, count in self._requests for key in self._real_parts(request, count).values()]
        cached = {} if self._cache is None else self._cache.load(keys, self._views)
        missing = [key for key in dict.fromkeys(keys) if key not in cached]
        found = self._collect(self._real, missing, "reading real images")
        if self._cache is not None:
            self._cache.save(found, self._views)
        self._seen = {**cached, **found}

    def score(self, fake: Images) -> list[Score]:
        """The figures of generated images, in the order of the requests."""
        self.reference()
        keys = [(r.figure.view, r.figure.collect, 0, count) for r, count in self._requests]
        generated = self._collect(fake, list(dict.fromkeys(keys)), "generating images")
        scores = []
        for (request, count), key in zip(self._requests, keys, strict=True):
            with progress.phase(f"computing {request.name}"):
                scores += self._scores(request, count, generated[key], fake)
        return scores

    def _scores(self, request: OfSets, count: int, fake_value: Any, fake: Images) -> list[Score]:
        figure, parts = request.figure, self._real_parts(request, count)
        real, floors = None, {}
        protocol = {
            **self._views[figure.view].protocol, "definition": figure.says, "range": "uint8, 0 to 255",
            "images_generated": count, **fake.protocol,
        }  # fmt: skip
        if "real" in parts:
            real = self._seen[parts["real"]]
            protocol |= {"images_real": parts["real"][3]}
        if parts:
            protocol |= self._real.protocol
        if self._floor:
            floors = figure.compare(self._seen[parts["one half"]], self._seen[parts["other half"]])
            protocol["images_floor"] = parts["one half"][3]
        return [
            Score(
                request.word,
                request.label(name, count // figure.per_count),
                value,
                figure.lower,
                floors.get(name),
                protocol,
            )
            for name, value in figure.compare(real, fake_value).items()
        ]

    def _collect(self, images: Images, keys: Sequence[tuple], title: str) -> dict[tuple, Any]:
        takes = [Take(view, collect(), start, stop) for view, collect, start, stop in keys]
        streaming.collect(images, takes, self._views, batch_size=self._batch_size, title=title)
        with progress.phase("computing the statistics"):
            return {key: take.collection.value for key, take in zip(keys, takes, strict=True)}


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"
