"""The specification of a prepared data set: everything its bytes depend on, and the shard of each image."""

import dataclasses
import importlib.metadata
import json
import pathlib
import re
from typing import Any

import introvae_jax
from introvae_jax import hashes
from introvae_jax.data import images
from introvae_jax.data.readers.base import Reader
from introvae_jax.errors import UserError, warn

BYTES_PER_SHARD = 2**27
MIN_SHARD, MAX_SHARD = 64, 1024  # images; a kill loses at most one shard
SUFFIXES = ("", *images.SUFFIXES)
TEST_RULE = '"5%" or "1000" (chosen by the hash of their names), or "last:1000"'


@dataclasses.dataclass(frozen=True)
class Known:
    """A well-known data set: its standard split, its size, and the version under which TFDS looks for it."""

    test: str
    images: int
    version: str = "1.0.0"


KNOWN = {
    "celeb_a_hq": Known("1000", 30_000, "2.0.0"),  # 29,000 / 1,000 as in the paper
    "celeb_a": Known("last:19962", 202_599),  # the official partition's test images
    "ffhq": Known("last:10000", 70_000),  # the official partition
}


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Everything that the bytes of a data set depend on.

    source: as the user named it. fingerprint: of the source's names and sizes. encoding: "png" or "jpeg" of
    `quality` (1 to 100). test: the images to hold out, see TEST_RULE; "" for the source's split or the standard one.
    """

    source: str
    fingerprint: str
    name: str
    target: images.Target
    encoding: str
    quality: int
    test: str

    @property
    def version(self) -> str:
        """The version under which TFDS looks for the data set."""
        return KNOWN[self.name].version if self.name in KNOWN else "1.0.0"

    @property
    def shard_size(self) -> int:
        """Number of entries per shard, at an estimated 1/2 byte per value."""
        return min(max(2 * BYTES_PER_SHARD // (self.target.size**2 * self.target.channels), MIN_SHARD), MAX_SHARD)

    def record(self) -> dict[str, Any]:
        """The specification and the package versions that the bytes depend on, for JSON."""
        packages = ("pillow", "tensorflow-datasets", "array-record")
        versions = {name: importlib.metadata.version(name) for name in packages}
        return {**dataclasses.asdict(self), "versions": {"introvae_jax": introvae_jax.__version__, **versions}}

    def comparable_record(self) -> dict[str, Any]:
        """The record without the name of the source, which its fingerprint identifies."""
        return json.loads(json.dumps({key: value for key, value in self.record().items() if key != "source"}))

    def digest(self) -> str:
        """The first 12 digits of the SHA-256 of `comparable_record`."""
        return hashes.sha256(json.dumps(self.comparable_record(), sort_keys=True).encode())[:12]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file: shard `number` of `total` of its split, with the readable images among the source's `entries`."""

    split: str
    number: int
    total: int
    entries: range | list[int]

    def filename(self, name: str) -> str:
        """The file name that TFDS expects."""
        return f"{name}-{self.split}.array_record-{self.number:05d}-of-{self.total:05d}"


def shards(spec: DatasetSpec, reader: Reader) -> list[Shard]:
    """All shards, by split. The split of an image depends on its name alone, not on other images.

    Raises UserError if `spec.test` is not a valid rule or leaves no image for one split.
    """
    held_out = _held_out(spec, reader)
    parts = {
        "train": [i for i in range(len(reader.names)) if i not in held_out],
        "test": sorted(held_out),
    }
    out = []
    for split, entries in parts.items():
        size, total = spec.shard_size, -(-len(entries) // spec.shard_size)
        out += [Shard(split, k, total, entries[k * size : (k + 1) * size]) for k in range(total)]
    return out


def _held_out(spec: DatasetSpec, reader: Reader) -> set[int]:
    if not spec.test and reader.splits is not None:
        return {i for i, split in enumerate(reader.splits) if split == "test"}
    # Only names of images count: other files, such as a licence, must not change the split.
    candidates = [i for i, name in enumerate(reader.names) if pathlib.PurePosixPath(name).suffix.lower() in SUFFIXES]
    candidates = candidates or list(range(len(reader.names)))
    count, known = len(candidates), KNOWN.get(spec.name)
    if known and not spec.test and count != known.images:
        warn(
            f"{spec.source}: {count:,} images, {spec.name} has {known.images:,}; the split will not be the standard one"
        )
    rule = spec.test or (known.test if known else "5%")
    match = re.fullmatch(r"(last:)?(\d+)|(\d+(?:\.\d+)?)%", rule)
    if not match:
        raise UserError(f"--test={rule}: must be {TEST_RULE}")
    wanted = int(match[2]) if match[2] else max(1, round(float(match[3]) / 100 * count))
    if not 0 < wanted < count:
        raise UserError(
            f"{spec.source}: holding out {rule} of {count} images leaves one split empty; give another --test"
        )
    if match[1]:
        return set(candidates[-wanted:])
    by_hash = sorted(candidates, key=lambda i: hashes.sha256(reader.names[i].encode("utf-8", "surrogateescape")))
    return set(by_hash[:wanted])
