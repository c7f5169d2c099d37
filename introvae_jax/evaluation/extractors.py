"""Feature extractors for metrics, computed on all local devices."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from introvae_jax import parallel
from introvae_jax.errors import UserError, warn
from introvae_jax.features import alexnet, inception, weights


@dataclasses.dataclass(frozen=True)
class FeatureExtractor:
    """extract: images uint8 [B, H, W, C] -> features [B, ...], possibly not yet computed (asynchronous dispatch).

    metadata: network, hash of its weights and resize mode, for records and cache keys.
    """

    extract: Callable[[np.ndarray], np.ndarray | jax.Array]
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True)
class FeatureExtractors:
    """Makes feature extractors by name: "pixels", "inception", "alexnet".

    resize: one of `inception.MODES`. inception_path, inception_sha256: of its weights, "" for the usual path.
    flag: the flag by which the user names another file.
    """

    resize: str = "pytorch"
    inception_path: str = ""
    inception_sha256: str = weights.INCEPTION_SHA256
    flag: str = "--inception"

    def require(self, name: str) -> None:
        """Raises UserError if the weights of `name` are missing, before anything is computed."""
        if name == "inception":
            weights.inception_path(self.inception_path, self.inception_sha256, self.flag)
        if name == "alexnet":
            alexnet.require()

    def make(self, name: str) -> FeatureExtractor:
        """The extractor `name`. Raises UserError if its weights are missing, ValueError if there is no such extractor.

        "inception": float32 [B, 2048]; "alexnet": float32 [B, 256]; "pixels": the images themselves.
        """
        if name == "pixels":
            return FeatureExtractor(lambda images: images, {"network": "none", "resize": "none"})
        if name == "inception":
            variables, digest = weights.inception(self.inception_path, self.inception_sha256, self.flag)
            features: Callable[..., jax.Array] = functools.partial(inception.features, mode=self.resize)
            network, resize = "Inception-v3 2015-12-05", f"{self.resize} mode, to 299x299"
            if digest != weights.INCEPTION_SHA256:
                network = "Inception-v3 of OTHER weights than the canonical ones"
        elif name == "alexnet":
            variables, digest = alexnet.load()
            features, network, resize = alexnet.features, "AlexNet (ImageNet)", "bilinear, antialiased, to 224x224"
        else:
            raise ValueError(f"no feature extractor {name!r}: must be pixels, inception or alexnet")
        metadata = {"network": network, "sha256": digest, "resize": resize}
        return FeatureExtractor(_on_all_devices(features, variables), metadata)


@dataclasses.dataclass(frozen=True)
class Lpips:
    """distance: two batches of images, float32 [B, H, W, C] in [0, 1] -> [B]. metadata: of its network."""

    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    metadata: dict[str, str]


def make_lpips(shape: tuple[int, ...]) -> Lpips | None:
    """LPIPS for images of this shape; None, with a warning, if it is not available."""
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

    return Lpips(distance, {"network": "AlexNet (ImageNet)", "sha256": digest, "resize": "none"})


def _on_all_devices(features: Callable[..., jax.Array], variables: Any) -> Callable[[np.ndarray], jax.Array]:
    replicas = parallel.local_replicas()
    variables, compiled, largest = replicas.replicate(variables), jax.jit(features), 0

    def extract(images: np.ndarray) -> jax.Array:
        nonlocal largest
        if images.shape[-1] == 1:
            images = np.repeat(images, 3, axis=-1)
        count, largest = len(images), max(largest, len(images))
        padding = ((0, largest - count),) + ((0, 0),) * 3  # one compiled program for the last batch too
        return compiled(variables, replicas.spread(np.pad(images, padding)))[:count]

    return extract
