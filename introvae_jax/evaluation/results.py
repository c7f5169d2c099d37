"""A figure with its protocol, and the record and the table that they make together."""

from collections.abc import Iterable, Sequence
import dataclasses
import datetime
import importlib.metadata
import json
import os
from typing import Any

import jax

import introvae_jax
from introvae_jax import disk

SETS = ("real", "generated", "model", "samples", "held_out", "outside")  # what a protocol tells of
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow")


@dataclasses.dataclass(frozen=True)
class Score:
    """name: with the number of images, "fid50k". request: the word that asked for it.

    lower: whether lower is better, None if neither is.
    floor: what two halves of the real images score against each other. protocol: all that the value depends on.
    """

    request: str
    name: str
    value: float
    lower: bool | None
    floor: float | None
    protocol: dict[str, Any]


def record(scores: Sequence[Score]) -> dict[str, Any]:
    """All of it as JSON can hold it; each figure stands for itself, protocol included."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    common = {
        "versions": {"introvae_jax": introvae_jax.__version__, **versions},
        "devices": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "precision": "highest",
    }
    figures = [
        {"name": s.name, "value": s.value, "floor": s.floor, "lower_is_better": s.lower,
         "protocol": {**s.protocol, **common}}
        for s in scores
    ]  # fmt: skip
    return {"made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "figures": figures}


def table(scores: Sequence[Score]) -> str:
    """Markdown: a line for each figure, and below it how they were obtained."""
    floor = any(s.floor is not None for s in scores)
    rows = [("figure", "value", *(("floor",) if floor else ()), "better", "images")]
    for s in scores:
        better = {True: "lower", False: "higher", None: "-"}[s.lower]
        cells = [s.name, number(s.value), *((_floor(s),) if floor else ()), better, _count(s.protocol)]
        rows.append(tuple(cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    lines.append("")
    ways: dict[str, list[str]] = {}
    for s in scores:
        ways.setdefault(_how(s.protocol), []).append(s.name)
    lines += [f"- {', '.join(names)}: {way}" for way, names in ways.items()]
    for kind in SETS:
        for said in {json.dumps(s.protocol[kind]): s.protocol[kind] for s in scores if kind in s.protocol}.values():
            lines.append(
                f"- {kind.replace('_', ' ')}: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in said.items())
            )
    return "\n".join(lines)


def save(scores: Sequence[Score], path: str | os.PathLike) -> None:
    """Writes `path` (JSON) and the table beside it (.md)."""
    path = disk.place(path)
    for file, text in (
        (path, json.dumps(record(scores), indent=1) + "\n"),
        (path.with_suffix(".md"), table(scores) + "\n"),
    ):
        with disk.whole_file(file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def headlines(names: Iterable[str]) -> list[str]:
    """The names without those of parts: of "swd16k" and "swd16k_64" the first."""
    names = list(names)
    parts = {name for name in names for other in names if name.startswith(f"{other}_") and name != f"{other}_full"}
    return [name for name in names if name not in parts]


def number(value: float) -> str:
    """Five digits, as many as any of the figures is good for."""
    return f"{value:.5g}"


def _count(protocol: dict[str, Any]) -> str:
    kinds = [kind for kind in ("real", "generated", "held_out", "outside") if f"images_{kind}" in protocol]
    return ", ".join(f"{protocol[f'images_{kind}']:,} {kind.replace('_', ' ')}" for kind in kinds)


def _floor(score: Score) -> str:
    """The floor, with its number of images where it is another than the figure's: the two then cannot be compared."""
    if score.floor is None:
        return "-"
    count = score.protocol["images_floor"]
    return number(score.floor) + ("" if count == score.protocol["images_generated"] else f" (of {count:,})")


def _how(protocol: dict[str, Any]) -> str:
    network = protocol.get("network", "none")
    seen = [] if network == "none" else [f"{network}, sha256 {protocol['sha256'][:8]}", f"resize {protocol['resize']}"]
    return "; ".join([protocol["definition"], *seen, f"values {protocol['range']}"])
