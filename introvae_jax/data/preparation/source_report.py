"""The report on a source of images: report.txt lists every finding, manifest.json counts them."""

import collections
from collections.abc import Iterable, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from introvae_jax import hashes
from introvae_jax.data.preparation import train_command
from introvae_jax.data.preparation.spec import DatasetSpec, Shard
from introvae_jax.data.readers.base import Reader
from introvae_jax.errors import printable

KINDS = ("left out", "changed", "duplicate")
SIZES_IN_MANIFEST = 20

Records = Sequence[tuple[Shard, dict[str, Any]]]


class Finding(NamedTuple):
    """kind: one of KINDS. what: the reason, the change, or the first of the equal images."""

    kind: str
    name: str
    what: str


Findings = Sequence[Finding]


def findings(reader: Reader, records: Records) -> list[Finding]:
    """All findings: skipped, changed and duplicate images."""
    found = [Finding("left out", name, reason) for name, reason in reader.skipped]
    first: dict[str, str] = {}
    for row in _rows(records):
        if "reason" in row:
            found.append(Finding("left out", row["name"], row["reason"]))
            continue
        found += [Finding("changed", row["name"], change) for change in row["changes"]]
        if row["digest"] in first:
            found.append(Finding("duplicate", row["name"], f"same pixels as {first[row['digest']]}; both are kept"))
        first.setdefault(row["digest"], row["name"])
    return sorted(found, key=lambda finding: (KINDS.index(finding.kind), finding.name))


def write(path: pathlib.Path, found: Findings) -> None:
    """Writes one line for each finding: kind, name and what, separated by tabs."""
    lines = ["\t".join(map(printable, finding)) + "\n" for finding in found]
    path.write_text("".join(lines), encoding="utf-8")


def summary(found: Findings) -> str:
    """ "2 left out (a.txt: ..., ...), 1 duplicate (...)", "" if there is nothing to say."""
    parts = []
    for kind in KINDS:
        of_kind = [finding for finding in found if finding.kind == kind]
        if of_kind:
            examples = ", ".join(f"{printable(f.name)}: {printable(f.what)}" for f in of_kind[:3])
            parts.append(f"{len(of_kind)} {kind} ({examples}{', ...' if len(of_kind) > 3 else ''})")
    return "; ".join(parts)


def counts(records: Records) -> dict[str, tuple[list[int], int]]:
    """For each split, the number of images in each shard and the total number of bytes."""
    out: dict[str, tuple[list[int], int]] = {}
    for shard, record in records:
        lengths, size = out.get(shard.split, ([], 0))
        out[shard.split] = ([*lengths, sum("digest" in row for row in record["rows"])], size + record["bytes"])
    return out


def manifest(spec: DatasetSpec, records: Records, found: Findings) -> dict[str, Any]:
    """The metadata of the data set: specification, splits, counts.

    "content" is a hash of the pixels, the same for the same images in any format.
    """
    digests = {
        split: [row["digest"] for row in _rows((s, r) for s, r in records if s.split == split) if "digest" in row]
        for split in ("train", "test")
    }
    sizes = collections.Counter(row["size"] for row in _rows(records) if "digest" in row)
    return {
        "plan": spec.record(),
        "splits": {
            split: {"images": sum(lengths), "shards": len(lengths), "bytes": size, "content": _hash(digests[split])}
            for split, (lengths, size) in counts(records).items()
        },
        "content": _hash(sorted(digests["train"] + digests["test"])),
        "original_sizes": dict(sizes.most_common(SIZES_IN_MANIFEST)),
        "findings": {kind: sum(finding.kind == kind for finding in found) for kind in KINDS},
    }


def describe(directory: pathlib.Path) -> str:
    """Describes a finished data set in a few lines, with the command that trains on it."""
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    plan, splits = manifest["plan"], manifest["splits"]
    size, channels = plan["target"]["size"], plan["target"]["channels"]
    images = {split: splits[split]["images"] if split in splits else 0 for split in ("train", "test")}
    lines = [
        f"{directory}: {images['train']:,} training and {images['test']:,} held-out images, {size}x{size}x{channels}, "
        f"{sum(split['bytes'] for split in splits.values()) / 2**20:,.1f} MiB, content {manifest['content'][:16]}"
    ]
    if found := summary(_read(directory / "report.txt")):
        lines.append(f"{found}; all are named in {directory / 'report.txt'}")
    command = train_command.command(directory, plan["name"], size, channels)
    lines.append(train_command.untrainable(size) or f"train on it: {command}")
    return "\n".join(map(printable, lines))


def _read(path: pathlib.Path) -> list[Finding]:
    """Reads what `write` wrote."""
    return [Finding(*line.split("\t", 2)) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _rows(records: Iterable[tuple[Shard, dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    return (row for _, record in records for row in record["rows"])


def _hash(digests: Sequence[str]) -> str:
    return hashes.sha256("".join(digests).encode())
