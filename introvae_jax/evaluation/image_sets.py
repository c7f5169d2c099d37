"""Sets of images to score, and one pass over a set for all metrics."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from introvae_jax import disk, pictures, progress
from introvae_jax.data import image_set, images, loader, source
from introvae_jax.evaluation.extractors import FeatureExtractor
from introvae_jax.metrics.base import Accumulator
from introvae_jax.model import Model


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images in a fixed order.

    count: number of images; None if unlimited. shape: (height, width, channels).
    batches: (count, batch_size) -> the first `count` images, uint8 [B, H, W, C], in order.
    metadata: of the set, for records. cache_key: everything that its pixels and their order depend on, for a set whose
    statistics may be cached.
    """

    count: int | None
    shape: tuple[int, ...]
    batches: Callable[[int, int], Iterable[np.ndarray]]
    metadata: dict[str, Any]
    cache_key: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def from_source(
    found: source.Source, shape: tuple[int, ...], kind: str, metadata: Mapping[str, Any], seed: int,
    cache_key: Mapping[str, Any] | None = None,
) -> ImageSet:  # fmt: skip
    """The images of a source, shuffled with `seed`, because sources may be sorted by class.

    kind: the set's key in records, for instance "real". metadata: of the set, for records.
    """
    order = np.random.default_rng(seed).permutation(len(found))

    def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
        return loader.once(found, order[:count], batch_size=batch_size)

    metadata = {kind: {**metadata, "images": len(found), "order_seed": seed}}
    return ImageSet(len(found), shape, batches, metadata, {**(cache_key or {}), "seed": seed})


def from_split(splits: source.Splits, split: str, kind: str, data: Mapping[str, Any], seed: int) -> ImageSet:
    """The split "train" or "test" of a run's images. data: `config.data`."""
    found, target = splits.train if split == "train" else splits.test, source.target_of(data)
    depends = {"split": split, "identity": splits.identity, **dataclasses.asdict(target)}
    metadata = {"data": data["name"] or data["path"] or data["source"], **depends}
    cache_key = {**depends, "test_fraction": data["test_fraction"]}
    return from_source(found, (target.size, target.size, target.channels), kind, metadata, seed, cache_key)


def from_path(path: str, kind: str, target: images.Target | None, seed: int) -> ImageSet:
    """The images of a folder or an archive. target: the size and format to convert them to, None for no conversion.

    Raises UserError as `image_set.open_image_set` does.
    """
    found, identity = image_set.open_image_set(path, target)
    depends = {"identity": identity, **(dataclasses.asdict(target) if target else {})}
    cache_key = {"place": str(disk.expand(path).absolute()), **depends}
    return from_source(found, found.shape, kind, {"data": path, **depends}, seed, cache_key)


def from_model(trained: Model, metadata: Mapping[str, Any], seed: int) -> ImageSet:
    """Samples of the seeds `seed`, `seed` + 1, ..., rounded to 8 bits as in an image file.

    metadata: as of `model_metadata`.
    """

    def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
        for start in range(0, count, batch_size):
            yield pictures.to_uint8(trained.sample(min(batch_size, count - start), seed + start))

    return ImageSet(None, trained.image_shape, batches, {"model": dict(metadata), "samples": {"first_seed": seed}})


def model_metadata(trained: Model, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a model for records."""
    config = trained.config
    batches = f"{config['checkpoint']['calibration_batches']} batches of {config['batch_size']}"
    statistics = f"measured for these weights on {batches}" if config["model"]["norm"] == "batch" else "none"
    return {
        "workdir": str(workdir), "objective": config["objective"]["name"], "step": trained.step,
        "weights": trained.weights, "batch_norm_statistics": statistics, "dtype": config["model"]["dtype"],
    }  # fmt: skip


class Part(NamedTuple):
    """The features of images `start` to `stop` of a set, in an accumulator."""

    features: str
    accumulator: Callable[[], Accumulator[Any]]
    start: int
    stop: int


def accumulate(
    image_set: ImageSet, parts: Sequence[Part], extractors: Mapping[str, FeatureExtractor], *,
    batch_size: int, title: str,
) -> dict[Part, Any]:  # fmt: skip
    """Computes the value of each part in one pass over the set. title: of the progress phase."""
    filled = {part: part.accumulator() for part in parts}
    last = max((part.stop for part in parts), default=0)
    waiting: list[tuple[Accumulator[Any], np.ndarray | jax.Array]] = []
    place = 0
    with progress.phase(title, last, "images") as reading:
        for batch in image_set.batches(last, batch_size):
            wanted = [part for part in filled if part.start < place + len(batch) and part.stop > place]
            seen = {name: extractors[name].extract(batch) for name in dict.fromkeys(part.features for part in wanted)}
            _add(waiting)  # overlaps with the devices' work on this batch
            waiting = [
                (filled[part], seen[part.features][max(part.start - place, 0) : part.stop - place]) for part in wanted
            ]
            place += len(batch)
            reading.advance(len(batch))
        _add(waiting)
    with progress.phase("computing the statistics"):
        return {part: accumulator.value for part, accumulator in filled.items()}


def _add(waiting: Sequence[tuple[Accumulator[Any], np.ndarray | jax.Array]]) -> None:
    for accumulator, rows in waiting:
        accumulator.add(np.asarray(rows))
