"""What the test of float32 gradients and the script that measures PyTorch's have in common: images, noise, settings."""

import numpy as np

CHANNELS, SIZE, Z, BATCH, SEEDS = (16, 32), 16, 16, 8, (0, 1, 2, 3, 4)
SETTINGS = {
    "alpha": 0.25, "alpha_d": 0.5, "beta": 1.0, "margin": 110.0, "hinge": "batch",
    "beta_kl": 1.0, "beta_neg": 256.0, "gamma": 0.0, "match_x": 20.0, "match_z": 8.0,
}  # fmt: skip
OBJECTIVES = ("introvae", "vae", "soft_introvae", "age")


def draw(seed):
    """Bright images of low contrast [B, S, S, 3] and four arrays of noise [B, Z]: eps, zp, eps_rec, eps_fake."""
    key = np.random.default_rng(seed)
    images = 0.9 + 0.03 * key.standard_normal((BATCH, SIZE, SIZE, 3))
    return np.float32(np.clip(images, 0.0, 1.0)), np.float32(key.standard_normal((4, BATCH, Z)))


def relative_error(arrays, exact):
    """Of a gradient given as a list of arrays: the norm of its error over the norm of `exact`."""
    difference = sum(np.sum((np.float64(a) - b) ** 2) for a, b in zip(arrays, exact, strict=True))
    return float(np.sqrt(difference / sum(np.sum(np.float64(b) ** 2) for b in exact)))
