"""What a GAN has no figures for: how well the encoder keeps held-out images, and what it thinks of others."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from introvae_jax import progress
from introvae_jax.errors import UserError, warn
from introvae_jax.evaluation.image_sets import Images
from introvae_jax.evaluation.results import Score
from introvae_jax.evaluation.specs import OfEncoder
from introvae_jax.features import alexnet
from introvae_jax.metrics import active_units, likelihood, ood, reconstruction, ssim
from introvae_jax.model import Model
from introvae_jax.training import parallel

IMPORTANCE_SAMPLES = 100  # of the latent, for each image
MOST = {"likelihood": 1_000}  # images that a figure takes if its name has no number
_AT_MU = "at z = mu"


@dataclasses.dataclass(frozen=True)
class _Part:
    """Figures that are obtained in one way. values: by name, with whether lower is better."""

    definition: str
    values: dict[str, tuple[float, bool | None]]
    protocol: dict[str, Any]


class Encoding:
    """Figures of a model on `held_out` images; `outside` are images of another kind, for "ood".

    Raises UserError for figures that cannot be had.
    """

    def __init__(
        self, requests: Sequence[OfEncoder], held_out: Images, config: Any, *, outside: Images | None = None,
        seed: int = 0, batch_size: int = 64,
    ):  # fmt: skip
        self._held_out, self._outside, self._seed, self._batch_size = held_out, outside, seed, batch_size
        self._requests = [(request, self._count(request, config)) for request in requests]
        objective = config["objective"]
        self._beta = objective["beta"] / (1.0 if objective["name"] == "introvae" else objective["beta_kl"])
        self._lpips = _lpips(held_out.shape) if self._wants("reconstruction", 0) else None

    def _count(self, request: OfEncoder, config: Any) -> int:
        """How many held-out images the figure takes."""
        there = self._held_out.count
        count = request.count or min(there, MOST.get(request.name, there))
        if count > there:
            fewer = f"{request.name}{there}"
            raise UserError(f"{request.word} needs {count:,} held-out images, and there are {there:,}: ask for {fewer}")
        if request.name == "active_units" and count < 2:
            raise UserError("active_units needs 2 held-out images or more")
        if request.name in ("likelihood", "ood") and config["model"]["prior"] != "normal":
            raise UserError(f"{request.name}: a model with model.prior = 'sphere' gives images no density")
        if request.name == "ood" and self._outside is None:
            raise UserError("ood: name images of another kind with --ood=DIR")
        return count

    def score(self, trained: Model, says: dict[str, Any]) -> list[Score]:
        """The figures, in the order of the requests. says: what a record tells of the model."""
        found, scores = self._per_image(trained), []
        common = {"range": "0 to 1", "model": says, **self._held_out.protocol}
        for request, count in self._requests:
            first = {name: values[:count] for name, values in found.items()}
            for part in getattr(self, f"_{request.name}")(first, trained):
                protocol = {"definition": part.definition, "images_held_out": count, **common, **part.protocol}
                for name, (value, lower) in part.values.items():
                    scores.append(Score(request.word, name, float(value), lower, None, protocol))
        return scores

    def _per_image(self, trained: Model) -> dict[str, np.ndarray]:
        """All that the figures are made of, a row for each held-out image."""
        batches: dict[str, list[np.ndarray]] = {}
        place, last = 0, max((count for _, count in self._requests), default=0)
        with progress.phase("encoding held-out images", last, "images") as encoding:
            for images in self._held_out.batches(last, self._batch_size):
                for name, values in self._of_batch(trained, images, place).items():
                    batches.setdefault(name, []).append(values)
                place += len(images)
                encoding.advance(len(images))
        return {name: np.concatenate(parts) for name, parts in batches.items()}

    def _of_batch(self, trained: Model, images: np.ndarray, place: int) -> dict[str, np.ndarray]:
        x = images / np.float32(255)
        mu, logvar = trained.encode(x)
        values = {"mu": mu}
        if self._wants("reconstruction", place) or self._wants("ood", place):
            values |= self._of_copies(x, trained.decode(mu, posterior=True), mu, logvar)
        if self._wants("likelihood", place):
            weights, shape = [], (IMPORTANCE_SAMPLES, trained.z_dim)
            each = (np.random.default_rng((self._seed, place + i)) for i in range(len(x)))  # whatever the batch
            for eps in np.stack([rng.standard_normal(shape, np.float32) for rng in each], axis=1):
                z = mu + np.exp(0.5 * logvar) * eps
                copies = trained.decode(z, posterior=True, clip=False)
                weights.append(likelihood.log_weights(x, copies, z, mu, logvar, self._beta))
            values |= {"bound": likelihood.combine(weights), "elbo": np.mean(weights, axis=0)}
        return values

    def _of_copies(
        self, x: np.ndarray, copies: np.ndarray, mu: np.ndarray, logvar: np.ndarray
    ) -> dict[str, np.ndarray]:
        values = {**reconstruction.errors(x, copies), "ssim": np.asarray(_ssim(x, copies))}
        if self._lpips is not None:
            values["lpips"] = self._lpips[0](x, copies)
        kl = 0.5 * np.sum(np.float64(mu) ** 2 + np.exp(np.float64(logvar)) - 1 - logvar, axis=1)
        error = 0.5 * np.sum((np.float64(copies) - x) ** 2, axis=(1, 2, 3))
        return {**values, "kl": kl, "negative_elbo": kl + self._beta * error}

    def _wants(self, name: str, place: int) -> bool:
        return any(request.name == name and count > place for request, count in self._requests)

    def _reconstruction(self, found: dict[str, np.ndarray], trained: Model) -> list[_Part]:
        how = f"mean over images, {_AT_MU}, clipped to [0, 1]"
        means = {name: (found[name].mean(), name == "mse") for name in ("mse", "psnr", "ssim")}
        parts = [_Part(how, means, {})]
        if self._lpips is not None:
            network = {"network": "AlexNet (ImageNet)", "sha256": self._lpips[1], "resize": "none"}
            parts.append(_Part(how, {"lpips": (found["lpips"].mean(), True)}, network))
        return parts

    def _active_units(self, found: dict[str, np.ndarray], trained: Model) -> list[_Part]:
        how = f"of {trained.z_dim} latent dimensions, those whose mu has a variance above 0.01"
        return [_Part(how, {"active_units": (active_units.active_units(found["mu"]), None)}, {})]

    def _likelihood(self, found: dict[str, np.ndarray], trained: Model) -> list[_Part]:
        bound, dims = found["bound"].mean(), int(np.prod(trained.image_shape))
        values = {
            "elbo": (found["elbo"].mean(), False),
            f"iw_bound_{IMPORTANCE_SAMPLES}": (bound, False),
            "bits_per_dim": (likelihood.bits_per_dim(bound, dims), True),
        }
        how = f"nats, {IMPORTANCE_SAMPLES} importance samples, noise of variance 1/{self._beta:g} a value"
        return [_Part(how, values, {"seed": self._seed})]

    def _ood(self, found: dict[str, np.ndarray], trained: Model) -> list[_Part]:
        others = []
        with progress.phase("encoding images from outside", self._outside.count, "images") as encoding:
            for images in self._outside.batches(self._outside.count, self._batch_size):
                x = images / np.float32(255)
                mu, logvar = trained.encode(x)
                others.append(self._of_copies(x, trained.decode(mu, posterior=True), mu, logvar))
                encoding.advance(len(images))
        outside = {name: np.concatenate([part[name] for part in others]) for name in ("kl", "negative_elbo")}
        values = {
            f"auroc_{name.removeprefix('negative_')}": (ood.auroc(found[name], outside[name]), False)
            for name in outside
        }
        protocol = {"images_outside": self._outside.count, **self._outside.protocol}
        scores = f"KL, or KL + beta AE (minus the ELBO), {_AT_MU}"
        return [_Part(f"how often an image from outside has the higher {scores}; 0.5 tells nothing", values, protocol)]


_ssim = jax.jit(ssim.ssim)


def _lpips(shape: tuple[int, ...]) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str] | None:
    """LPIPS of images of this shape and its weights' hash; None, with a warning, where it cannot be had."""
    if min(shape[:2]) < alexnet.SMALLEST:
        warn(f"reconstruction without LPIPS: it needs {alexnet.SMALLEST} pixels a side")
        return None
    try:
        variables, digest = alexnet.load()
    except UserError as error:
        warn(f"reconstruction without LPIPS: {error}")
        return None
    replicas = parallel.local_replicas()
    variables, compiled = replicas.replicate(variables), jax.jit(alexnet.lpips)

    def distance(images: np.ndarray, copies: np.ndarray) -> np.ndarray:
        if images.shape[-1] == 1:
            images, copies = (np.repeat(x, 3, axis=-1) for x in (images, copies))
        return np.asarray(compiled(variables, replicas.spread(images), replicas.spread(copies)))

    return distance, digest
