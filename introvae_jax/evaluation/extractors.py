"""What the figures see of images: the pixels themselves, or the features of a network, on all devices."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from introvae_jax.features import alexnet, inception, weights
from introvae_jax.training import parallel


@dataclasses.dataclass(frozen=True)
class View:
    """look: images uint8 [B, H, W, C] -> rows [B, ...], maybe still on their way from the device.

    protocol: what the record of a figure says of it.
    """

    look: Callable[[np.ndarray], Any]
    protocol: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Views:
    """Makes views.

    resize: one of `inception.MODES`. inception_path, inception_sha256: of its weights, "" for the usual place.
    flag: with which the user names another file.
    """

    resize: str = "pytorch"
    inception_path: str = ""
    inception_sha256: str = weights.INCEPTION_SHA256
    flag: str = "--inception"

    def require(self, name: str) -> None:
        """Raises UserError if what the view `name` needs is not there, before anything is computed."""
        if name == "inception":
            weights.inception_path(self.inception_path, self.inception_sha256, self.flag)
        if name == "alexnet":
            alexnet.require()

    def make(self, name: str) -> View:
        """The view `name`. Raises UserError if its network is not there."""
        if name == "pixels":
            return View(lambda images: images, {"network": "none", "resize": "none"})
        if name == "inception":
            variables, digest = weights.inception(self.inception_path, self.inception_sha256, self.flag)
            look = functools.partial(inception.features, mode=self.resize)
            network, resize = "Inception-v3 2015-12-05", f"{self.resize} mode, to 299x299"
            if digest != weights.INCEPTION_SHA256:
                network = "Inception-v3 of OTHER weights than the canonical ones"
        else:
            variables, digest = alexnet.load()
            look, network, resize = alexnet.features, "AlexNet (ImageNet)", "bilinear, antialiased, to 224x224"
        return View(_on_all_devices(look, variables), {"network": network, "sha256": digest, "resize": resize})


def _on_all_devices(features: Callable[..., jax.Array], variables: Any) -> Callable[[np.ndarray], Any]:
    replicas = parallel.local_replicas()
    variables, compiled, largest = replicas.replicate(variables), jax.jit(features), 0

    def look(images: np.ndarray) -> Any:
        nonlocal largest
        if images.shape[-1] == 1:
            images = np.repeat(images, 3, axis=-1)
        count, largest = len(images), max(largest, len(images))
        padding = ((0, largest - count),) + ((0, 0),) * 3  # one compiled program for the last batch too
        return compiled(variables, replicas.spread(np.pad(images, padding)))[:count]

    return look
