"""Results: metric values with their protocols, and their record and table."""

from collections.abc import Sequence
import dataclasses
import datetime
import importlib.metadata
import json
import os
from typing import Any

import jax

import introvae_jax
from introvae_jax import disk
from introvae_jax.formatting import markdown, number

SETS = ("real", "generated", "model", "samples", "held_out", "outside")  # keys of a protocol that describe sets
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow")


@dataclasses.dataclass(frozen=True)
class Result:
    """A value of a metric. name: with the number of images, "fid50k". spec: the metric spec of the user.

    lower_is_better: None if neither direction is better. floor: the score of two halves of the real images against each
    other, or None. protocol: everything that the value depends on.
    """

    spec: str
    name: str
    value: float
    lower_is_better: bool | None
    floor: float | None
    protocol: dict[str, Any]


def record(results: Sequence[Result]) -> dict[str, Any]:
    """The results as a JSON object, each with its full protocol."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    common = {
        "versions": {"introvae_jax": introvae_jax.__version__, **versions},
        "devices": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "precision": "highest",
    }
    figures = [
        {"name": r.name, "value": r.value, "floor": r.floor, "lower_is_better": r.lower_is_better,
         "protocol": {**r.protocol, **common}}
        for r in results
    ]  # fmt: skip
    return {"made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "figures": figures}


def table(results: Sequence[Result]) -> str:
    """A Markdown table with a line for each value, and the protocol below it."""
    floor = any(r.floor is not None for r in results)
    rows = [("metric", "value", *(("floor",) if floor else ()), "better", "images")]
    for r in results:
        better = "-" if r.lower_is_better is None else "lower" if r.lower_is_better else "higher"
        cells = (r.name, number(r.value), *((_floor(r),) if floor else ()), better, _count(r.protocol))
        rows.append(cells)
    lines = [*markdown(rows), ""]
    ways: dict[str, list[str]] = {}
    for r in results:
        ways.setdefault(_how(r.protocol), []).append(r.name)
    lines += [f"- {', '.join(names)}: {way}" for way, names in ways.items()]
    for kind in SETS:
        found = {json.dumps(r.protocol[kind]): r.protocol[kind] for r in results if kind in r.protocol}
        for metadata in found.values():
            words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in metadata.items())
            lines.append(f"- {kind.replace('_', ' ')}: {words}")
    return "\n".join(lines)


def save(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Writes `path` (JSON) and the table beside it (.md). Raises OSError if it cannot."""
    path = disk.resolve(path)
    for file, text in (
        (path, json.dumps(record(results), indent=1) + "\n"),
        (path.with_suffix(".md"), table(results) + "\n"),
    ):
        with disk.atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _count(protocol: dict[str, Any]) -> str:
    kinds = [kind for kind in ("real", "generated", "held_out", "outside") if f"images_{kind}" in protocol]
    return ", ".join(f"{protocol[f'images_{kind}']:,} {kind.replace('_', ' ')}" for kind in kinds)


def _floor(result: Result) -> str:
    """The floor. If its number of images differs from the metric's, the number is added: the two are not comparable."""
    if result.floor is None:
        return "-"
    count = result.protocol["images_floor"]
    return number(result.floor) + ("" if count == result.protocol["images_generated"] else f" (of {count:,})")


def _how(protocol: dict[str, Any]) -> str:
    network = protocol.get("network", "none")
    seen = [] if network == "none" else [f"{network}, sha256 {protocol['sha256'][:8]}", f"resize {protocol['resize']}"]
    return "; ".join([protocol["definition"], *seen, f"values {protocol['range']}"])
