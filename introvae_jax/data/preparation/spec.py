"""What a prepared data set will be: everything its bytes depend on, and which image goes where."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import re
from typing import Any

import introvae_jax
from introvae_jax.data import images
from introvae_jax.data.readers.base import Form
from introvae_jax.errors import UserError, warn

BYTES_PER_SHARD = 2**27
MIN_SHARD, MAX_SHARD = 64, 1024  # images: what is lost at a kill is at most one shard
SUFFIXES = ("", *images.SUFFIXES)
TEST_RULE = '"5%" or "1000" (chosen by the hash of their names), or "last:1000"'


@dataclasses.dataclass(frozen=True)
class Known:
    """A well-known data set: its usual split, its size, and the version under which TFDS looks for it."""

    test: str
    images: int
    version: str = "1.0.0"


KNOWN = {
    "celeb_a_hq": Known("1000", 30_000, "2.0.0"),  # 29,000 / 1,000, as in the paper, which does not say which
    "celeb_a": Known("last:19962", 202_599),  # the official partition's test images
    "ffhq": Known("last:10000", 70_000),  # the official partition
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that the bytes depend on.

    source: as the user named it. fingerprint: of the source's names and sizes. encoding: "png" or "jpeg" of
    `quality`. test: which images are held out, see TEST_RULE; "" for the source's own split or the usual one.
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
        return KNOWN[self.name].version if self.name in KNOWN else "1.0.0"

    @property
    def shard_size(self) -> int:
        """Entries of a shard, by a guess of 1/2 byte a value."""
        return min(max(2 * BYTES_PER_SHARD // (self.target.size**2 * self.target.channels), MIN_SHARD), MAX_SHARD)

    def record(self) -> dict[str, Any]:
        """The plan and the versions that the bytes depend on besides, as JSON holds them."""
        packages = ("pillow", "tensorflow-datasets", "array-record")
        versions = {name: importlib.metadata.version(name) for name in packages}
        return {**dataclasses.asdict(self), "versions": {"introvae_jax": introvae_jax.__version__, **versions}}

    def essence(self) -> dict[str, Any]:
        """The record without the words by which the source was named: the fingerprint knows it better."""
        return json.loads(json.dumps({key: value for key, value in self.record().items() if key != "source"}))

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.essence(), sort_keys=True).encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file: shard `number` of `total` of its split, holding what is whole among the source's `entries`."""

    split: str
    number: int
    total: int
    entries: range | list[int]

    def filename(self, name: str) -> str:
        """As TFDS names it."""
        return f"{name}-{self.split}.array_record-{self.number:05d}-of-{self.total:05d}"


def shards(plan: Plan, form: Form) -> list[Shard]:
    """All shards, by split. An image's split depends on its name alone, not on the health of others."""
    held_out = _held_out(plan, form)
    parts = {
        "train": [i for i in range(len(form.names)) if i not in held_out],
        "test": sorted(held_out),
    }
    out = []
    for split, entries in parts.items():
        size, total = plan.shard_size, -(-len(entries) // plan.shard_size)
        out += [Shard(split, k, total, entries[k * size : (k + 1) * size]) for k in range(total)]
    return out


def _held_out(plan: Plan, form: Form) -> set[int]:
    if not plan.test and form.splits is not None:
        return {i for i, split in enumerate(form.splits) if split == "test"}
    # By their names: a licence or a list beside the images must not shift the border.
    may_be = [i for i, name in enumerate(form.names) if pathlib.PurePosixPath(name).suffix.lower() in SUFFIXES]
    may_be = may_be or list(range(len(form.names)))
    count, known = len(may_be), KNOWN.get(plan.name)
    if known and not plan.test and count != known.images:
        warn(f"{plan.source}: {count:,} images, {plan.name} has {known.images:,}; the split will not be the usual one")
    rule = plan.test or (known.test if known else "5%")
    match = re.fullmatch(r"(last:)?(\d+)|(\d+(?:\.\d+)?)%", rule)
    if not match:
        raise UserError(f"--test={rule}: must be {TEST_RULE}")
    wanted = int(match[2]) if match[2] else max(1, round(float(match[3]) / 100 * count))
    if not 0 < wanted < count:
        raise UserError(
            f"{plan.source}: holding out {rule} of {count} images leaves none for one side; give another --test"
        )
    if match[1]:
        return set(may_be[-wanted:])
    hashes = {i: hashlib.sha256(form.names[i].encode("utf-8", "surrogateescape")).digest() for i in may_be}
    return set(sorted(may_be, key=hashes.__getitem__)[:wanted])
