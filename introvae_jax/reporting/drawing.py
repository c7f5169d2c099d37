"""The pictures that a run draws of its model while it trains."""

import numpy as np
from PIL import Image

from introvae_jax import pictures, plots
from introvae_jax.data.densities import DENSITIES
from introvae_jax.data.source import Source
from introvae_jax.model import Model

PICTURE_SIDE = 2048  # pixels that a grid may have a side
MOST_A_SIDE = 8  # images
POINTS, CELLS = 5_000, 200  # of a picture of a 2-D density


def draw(trained: Model, test: Source) -> dict[str, Image.Image]:
    """Pictures by name: fixed-seed samples, and what becomes of held-out data."""
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
    """True points, samples, reconstructions, and the density that encoder and decoder together see."""
    reach = DENSITIES[trained.config["data"]["name"]].reach
    panels = {
        "data": real, "samples": trained.sample(POINTS), "reconstructions": trained.reconstruct(real),
        "exp(ELBO)": _exp_elbo(trained, reach),
    }  # fmt: skip
    return {"density": plots.points(panels, reach)}


def _exp_elbo(trained: Model, reach: float) -> np.ndarray:
    """exp(-KL - beta * AE) at z = mu for each cell of the square, [CELLS, CELLS], rows from y = -reach up."""
    objective = trained.config["objective"]
    ticks = np.linspace(-reach, reach, CELLS, dtype=np.float32)
    x = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    mu, logvar = trained.encode(x)
    kl = 0.5 * np.sum(mu**2 + np.exp(logvar) - 1 - logvar, axis=1)
    error = 0.5 * np.sum((trained.decode(mu, posterior=True) - x) ** 2, axis=1)
    beta = objective["beta"] / (1.0 if objective["name"] == "introvae" else objective["beta_kl"])
    return np.exp(-kl - beta * error).reshape(CELLS, CELLS)
