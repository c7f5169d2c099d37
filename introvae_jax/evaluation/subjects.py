"""What is scored: sets of images, each with what a record tells of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import os
from typing import Any

import numpy as np

from introvae_jax import disk, pictures
from introvae_jax.data import image_set, images, loader, source
from introvae_jax.model import Model


@dataclasses.dataclass(frozen=True)
class Images:
    """A set of images in the order in which figures take them.

    count: how many there are; None without end. shape: (height, width, channels). batches: the first so many of them,
    uint8, a batch of this size at a time. protocol: what a record tells of the set. stamp: all that its pixels and
    their order depend on, for a set whose statistics may be kept.
    """

    count: int | None
    shape: tuple[int, ...]
    batches: Callable[[int, int], Iterable[np.ndarray]]
    protocol: dict[str, Any]
    stamp: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def of_source(
    found: source.Source, shape: tuple[int, ...], kind: str, says: Mapping[str, Any], seed: int,
    stamp: Mapping[str, Any] | None = None,
) -> Images:  # fmt: skip
    """The images of a source in an order drawn with `seed`: they may be sorted by class.

    kind: what a record calls them, "real" for instance. says: what it tells of them.
    """
    order = np.random.default_rng(seed).permutation(len(found))

    def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
        return loader.once(found, order[:count], batch_size=batch_size)

    protocol = {kind: {**says, "images": len(found), "order_seed": seed}}
    return Images(len(found), shape, batches, protocol, {**(stamp or {}), "seed": seed})


def of_split(splits: source.Splits, split: str, kind: str, data: Mapping[str, Any], seed: int) -> Images:
    """The split "train" or "test" of a run's images. data: `config.data`."""
    found, target = splits.train if split == "train" else splits.test, source.target_of(data)
    depends = {"split": split, "identity": splits.identity, **dataclasses.asdict(target)}
    says = {"data": data["name"] or data["path"] or data["source"], **depends}
    stamp = {**depends, "test_fraction": data["test_fraction"]}
    return of_source(found, (target.size, target.size, target.channels), kind, says, seed, stamp)


def of_place(place: str, kind: str, target: images.Target | None, seed: int) -> Images:
    """The images of a folder or an archive. target: what they are brought to, None to take them as they are.

    Raises UserError as `image_set.open_image_set` does.
    """
    found, identity = image_set.open_image_set(place, target)
    depends = {"identity": identity, **(dataclasses.asdict(target) if target else {})}
    stamp = {"place": str(disk.expand(place).absolute()), **depends}
    return of_source(found, found.shape, kind, {"data": place, **depends}, seed, stamp)


def of_model(trained: Model, says: Mapping[str, Any], seed: int) -> Images:
    """Samples of the seeds `seed`, `seed` + 1, ..., rounded to 8 bits as in a picture file."""

    def batches(count: int, batch_size: int) -> Iterator[np.ndarray]:
        for start in range(0, count, batch_size):
            yield pictures.to_uint8(trained.sample(min(batch_size, count - start), seed + start))

    return Images(None, trained.image_shape, batches, {"model": dict(says), "samples": {"first_seed": seed}})


def describe(trained: Model, workdir: str | os.PathLike) -> dict[str, Any]:
    """What a record tells of a model."""
    config = trained.config
    batches = f"{config['checkpoint']['calibration_batches']} batches of {config['batch_size']}"
    statistics = f"measured for these weights on {batches}" if config["model"]["norm"] == "batch" else "none"
    return {
        "workdir": str(workdir), "objective": config["objective"]["name"], "step": trained.step,
        "weights": trained.weights, "batch_norm_statistics": statistics, "dtype": config["model"]["dtype"],
    }  # fmt: skip
