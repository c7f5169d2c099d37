"""Plots of a run: its curves, and the density that a 2-D model has learnt."""

from collections.abc import Mapping, Sequence
import math
import os
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from PIL import Image

from introvae_jax import disk

LEVEL = {"color": "grey", "linestyle": ":"}  # style of constants, such as the margin
FEW = 30  # curves of at most so many points get markers: a line of one point is invisible


def curves(
    records: Sequence[dict[str, Any]], path: str | os.PathLike[str], panels: Mapping[str, Sequence[str]],
    levels: Mapping[str, float] | None = None, scored: Sequence[str] = (),
) -> None:  # fmt: skip
    """Plots the terms of `panels`, the gradient norms and the `scored` metrics over steps into a PNG.

    panels: names of terms by title. A term that no record has is omitted, or drawn as its constant in `levels`.
    """
    levels = levels or {}
    panels = dict(panels) | {"gradient norm": ("grad_norm_encoder", "grad_norm_decoder")}
    if any("beta" in record for record in records):
        panels["beta"] = ("beta",)
    panels |= {f"{name} of the averaged weights": (name,) for name in scored}
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(11, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 2).flat
    for empty in grid[len(panels) :]:
        empty.set_axis_off()
    for axes, (title, names) in zip(grid[: len(panels)], panels.items(), strict=True):
        for name in names:
            points = [(r["step"], r[name]) for r in records if name in r]
            if points:
                style = LEVEL if name == "margin" else {}
                marker = "." if name in scored or len(points) <= FEW else None
                axes.plot(*zip(*points, strict=True), label=name, marker=marker, **style)
            elif name in levels:
                axes.axhline(levels[name], label=name, **LEVEL)
        if title.startswith(("gradient", "reconstruction", "beta")):
            axes.set_yscale("log")
        axes.set(title=title, xlabel="step")
        if axes.lines:
            axes.legend()
    with disk.atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def points(panels: Mapping[str, np.ndarray], reach: float) -> Image.Image:
    """Plots panels side by side: points [N, 2] as dots, densities [S, S] (rows from y = -reach up) as colours.

    reach: each panel shows the square from -reach to reach.
    """
    figure = Figure(figsize=(3 * len(panels), 3.3), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, (title, array) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        if array.shape[1] == 2:
            axes.plot(array[:, 0], array[:, 1], ",", color="black", alpha=0.5)
        else:
            axes.imshow(array, origin="lower", extent=(-reach, reach, -reach, reach), cmap="viridis")
        axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
