"""Values of metrics with their protocol, and the record and the table that they make together."""

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

SETS = ("real", "generated", "model", "samples", "held_out", "outside")  # that a protocol may describe
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow")


@dataclasses.dataclass(frozen=True)
class Result:
    """One value of a metric. name: with the number of images, "fid50k". spec: the word that asked for it.

    lower_is_better: None if neither is. floor: what two halves of the real images score against each other, None
    without one. protocol: all that the value depends on.
    """

    spec: str
    name: str
    value: float
    lower_is_better: bool | None
    floor: float | None
    protocol: dict[str, Any]


def record(results: Sequence[Result]) -> dict[str, Any]:
    """The results as JSON can hold them, each with its whole protocol."""
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
    """Markdown: a line for each value, and below it how the values were obtained."""
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
    """The floor, with its number of images where that differs from the metric's: the two then cannot be compared."""
    if result.floor is None:
        return "-"
    count = result.protocol["images_floor"]
    return number(result.floor) + ("" if count == result.protocol["images_generated"] else f" (of {count:,})")


def _how(protocol: dict[str, Any]) -> str:
    network = protocol.get("network", "none")
    seen = [] if network == "none" else [f"{network}, sha256 {protocol['sha256'][:8]}", f"resize {protocol['resize']}"]
    return "; ".join([protocol["definition"], *seen, f"values {protocol['range']}"])
