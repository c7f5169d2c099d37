"""Draws pictures of the model and curves during training."""

from collections.abc import Iterator
import contextlib
import pathlib

import ml_collections
import numpy as np
from PIL import Image

from introvae_jax import objectives, pictures, plots
from introvae_jax.data.densities import DENSITIES
from introvae_jax.data.source import Source
from introvae_jax.errors import warn
from introvae_jax.metrics import headlines
from introvae_jax.model import Model
from introvae_jax.objectives import terms
from introvae_jax.reporting import records
from introvae_jax.reporting.logging import NO_TERMS, Reporter

MOST_SCORES = 6  # metrics with a panel in curves.png
PICTURE_SIDE = 2048  # most pixels per side of a grid
MOST_A_SIDE = 8  # images per side of a grid
POINTS, CELLS = 5_000, 200  # of a picture of a 2-D density


class Drawings:
    """Draws WORKDIR/pictures/ and WORKDIR/curves.png. Warns once if a file cannot be written."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: pathlib.Path):
        self._config, self._workdir, self._warned = config, workdir, False

    def pictures(self, trained: Model, test: Source, reporter: Reporter) -> None:
        """Writes samples and reconstructions of `trained` as PNG files and to TensorBoard."""
        for name, image in draw(trained, test).items():
            with self._unless_unwritable():
                pictures.save(image, self._workdir / "pictures" / f"{name}_{trained.step:07d}.png")
            reporter.picture(name, image, trained.step)

    def curves(self) -> None:
        """Draws curves.png from metrics.jsonl."""
        found = records.read_metrics(self._workdir / "metrics.jsonl")
        settings = self._config.objective
        kind = objectives.kind(settings)
        scored = dict.fromkeys(name for record in found if "loss_rec" not in record for name in record)
        shown = [name for name in headlines(scored) if name not in NO_TERMS][:MOST_SCORES]
        with self._unless_unwritable():
            plots.curves(found, self._workdir / "curves.png", kind.panels, kind.levels(settings), shown)

    @contextlib.contextmanager
    def _unless_unwritable(self) -> Iterator[None]:
        """Context that turns write errors into a warning: a missing picture must not end the training."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                warn(f"{error.filename or self._workdir}: {error.strerror or error}; continuing without this picture")
            self._warned = True


def draw(trained: Model, test: Source) -> dict[str, Image.Image]:
    """Pictures by name: fixed-seed samples, and reconstructions of held-out data."""
    if trained.config["data"]["source"] == "density":
        return _of_density(trained, np.asarray(test[np.arange(POINTS)]))
    return _of_images(trained, test)


def _of_images(trained: Model, test: Source) -> dict[str, Image.Image]:
    """A grid of samples, and held-out images beside their reconstructions."""
    side = max(2, min(MOST_A_SIDE, PICTURE_SIDE // trained.image_shape[0]))
    rows = np.linspace(0, len(test) - 1, min(side**2 // 2, len(test))).astype(int)
    images = np.asarray(test[rows])
    return {
        "samples": pictures.grid(trained.sample(side**2)),
        "reconstructions": pictures.pairs(images / 255.0, trained.reconstruct(images), side // 2),
    }


def _of_density(trained: Model, real: np.ndarray) -> dict[str, Image.Image]:
    """True points, samples, reconstructions, and exp(ELBO) over the plane."""
    reach = DENSITIES[trained.config["data"]["name"]].reach
    panels = {
        "data": real, "samples": trained.sample(POINTS), "reconstructions": trained.reconstruct(real),
        "exp(ELBO)": _exp_elbo(trained, reach),
    }  # fmt: skip
    return {"density": plots.points(panels, reach)}


def _exp_elbo(trained: Model, reach: float) -> np.ndarray:
    """exp(-KL - beta * AE) at z = mu for each cell of the square, [CELLS, CELLS], rows from y = -reach up."""
    ticks = np.linspace(-reach, reach, CELLS, dtype=np.float32)
    x = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    mu, logvar = trained.encode(x)
    settings = trained.config["objective"]
    beta = objectives.kind(settings).elbo_beta(settings)
    error = terms.reconstruction(x, trained.decode(mu, posterior=True))
    return np.exp(-np.asarray(terms.kl(mu, logvar) + beta * error)).reshape(CELLS, CELLS)
