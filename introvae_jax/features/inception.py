"""The Inception-v3 network of the Frechet inception distance (Heusel et al. 2017, arXiv 1706.08500).

It is TensorFlow's network of 2015 with 1,008 classes. It differs from the published one (Szegedy et al. 2016, arXiv
1512.00567) in ways that affect the features: pools do not average over padding, and the last block uses max pooling.
BatchNorm always uses the stored statistics, so it is folded into the convolutions when weights are read.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from introvae_jax.features import resize

MODES = ("pytorch", "tensorflow")
SIZE = 299  # pixels, height and width of the network's input
DIM = 2048
EPSILON = 1e-3  # of BatchNorm


class Conv(NamedTuple):
    """A convolution with bias, followed by ReLU.

    name: in the weights file, without the name of the block. padded: True to keep the size; never with stride 2.
    """

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Block(NamedTuple):
    """Branches with the same input, whose outputs are concatenated."""

    name: str
    branches: Sequence[Sequence["Layer"]]


# Names are those of 3x3 pools: "average" and "maximum" keep the size, "halve" is a maximum of stride 2.
Layer = Conv | Block | str


def _block_5(name: str, pooled: int) -> Block:
    branches: Sequence[Sequence[Layer]] = (
        [Conv("branch1x1", 64)],
        [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))],
        [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))],
        ["average", Conv("branch_pool", pooled)],
    )
    return Block(name, branches)


def _block_6(name: str, inner: int) -> Block:
    def chain(prefix: str, *kernels: tuple[int, int]) -> list[Conv]:
        widths = [inner] * (len(kernels) - 1) + [192]
        return [Conv(f"{prefix}_{i}", c, k) for i, (c, k) in enumerate(zip(widths, kernels, strict=True), 1)]

    across, down = (1, 7), (7, 1)
    branches: Sequence[Sequence[Layer]] = (
        [Conv("branch1x1", 192)],
        chain("branch7x7", (1, 1), across, down),
        chain("branch7x7dbl", (1, 1), down, across, down, across),
        ["average", Conv("branch_pool", 192)],
    )
    return Block(name, branches)


def _block_7(name: str, pool: str) -> Block:
    def fork(prefix: str) -> Block:
        return Block(prefix, ([Conv("a", 384, (1, 3))], [Conv("b", 384, (3, 1))]))

    branches: Sequence[Sequence[Layer]] = (
        [Conv("branch1x1", 320)],
        [Conv("branch3x3_1", 384), fork("branch3x3_2")],
        [Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3")],
        [pool, Conv("branch_pool", 192)],
    )
    return Block(name, branches)


NETWORK = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padded=False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    "halve",
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padded=False),
    "halve",
    _block_5("Mixed_5b.", 32),
    _block_5("Mixed_5c.", 64),
    _block_5("Mixed_5d.", 64),
    Block(
        "Mixed_6a.",
        (
            [Conv("branch3x3", 384, (3, 3), 2)],
            [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3), 2)],
            ["halve"],
        ),
    ),
    _block_6("Mixed_6b.", 128),
    _block_6("Mixed_6c.", 160),
    _block_6("Mixed_6d.", 160),
    _block_6("Mixed_6e.", 192),
    Block(
        "Mixed_7a.",
        (
            [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2)],
            [
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, (3, 3), 2),
            ],
            ["halve"],
        ),
    ),
    _block_7("Mixed_7b.", "average"),
    _block_7("Mixed_7c.", "maximum"),
)


class InceptionV3(nn.Module):
    """Prepared images [B, 299, 299, 3] -> the features after the last pooling, [B, 2048], at least 0."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.mean(_apply(NETWORK, x, ""), axis=(1, 2))


def _apply(layers: Sequence[Layer], x: jax.Array, prefix: str) -> jax.Array:
    for layer in layers:
        match layer:
            case Conv():
                x = _convolve(layer, x, prefix)
            case Block(name, branches):
                x = jnp.concatenate([_apply(branch, x, prefix + name) for branch in branches], axis=-1)
            case "average":
                x = _pool(functools.partial(nn.avg_pool, count_include_pad=False), x, 1, "SAME")
            case "maximum":
                x = _pool(nn.max_pool, x, 1, "SAME")
            case "halve":
                x = _pool(nn.max_pool, x, 2, "VALID")
    return x


def _convolve(layer: Conv, x: jax.Array, prefix: str) -> jax.Array:
    """Applies a convolution, in the form that is fastest on XLA's CPU backend."""
    name, highest = prefix + layer.name, jax.lax.Precision.HIGHEST
    if layer.kernel == (1, 1):
        return nn.relu(nn.Dense(layer.channels, precision=highest, name=name)(x))
    if layer.padded and layer.stride == 1:
        return nn.relu(nn.Conv(layer.channels, layer.kernel, precision=highest, name=name)(x))
    # Padding by a row and a column of zeros, cut off again, avoids the slow path for convolutions without padding.
    height, width = ((n - 3) // layer.stride + 1 for n in x.shape[1:3])
    padding = ((0, 1), (0, 1))
    x = nn.Conv(layer.channels, layer.kernel, layer.stride, padding, precision=highest, name=name)(x)
    return nn.relu(x[:, :height, :width])


def _pool(pool: Callable[..., jax.Array], x: jax.Array, stride: int, padding: str) -> jax.Array:
    """Applies a 3x3 pooling one axis after the other, which is equivalent and faster."""
    x = pool(x, (3, 1), (stride, 1), padding)
    return pool(x, (1, 3), (1, stride), padding)


def prepare(images: jax.Array, mode: str) -> jax.Array:
    """Converts images [B, H, W, 3], uint8 or in 0..255, to the network's input, float32 [B, 299, 299, 3] in [-1, 1].

    mode: "pytorch" resizes as pytorch-fid does (pixel centres are aligned), "tensorflow" as the original implementation
    and torch-fidelity do (top left corners are aligned). Neither mode uses antialiasing. The two modes differ by far
    more than rounding: values of different modes must not be compared.
    Raises ValueError for another mode.
    """
    x = images.astype(jnp.float32)
    if mode == "pytorch":
        return 2 * resize.bilinear(x / 255, SIZE, "centres") - 1
    if mode == "tensorflow":
        return (resize.bilinear(x, SIZE, "corners") - 128) / 128
    raise ValueError(f"mode={mode!r}: must be one of {', '.join(MODES)}")


def features(variables: Mapping[str, Any], images: jax.Array, mode: str) -> jax.Array:
    """float32 [B, 2048] of images [B, H, W, 3], uint8 or of values 0 to 255. mode: as in `prepare`."""
    return InceptionV3().apply(variables, prepare(images, mode))  # type: ignore[return-value] # no mutable collection


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables of `InceptionV3` from the state dict of pytorch-fid's or torch-fidelity's network.

    The classifier ("fc") is ignored. Raises ValueError that names an entry which is missing or has another shape.
    """
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    return {"params": {name: _folded(state, name, layer["kernel"].shape) for name, layer in shapes.items()}}


def _folded(state: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The convolution and the BatchNorm `name` in one. shape: of the kernel, [H, W, in, out] or [in, out]."""

    def entry(key: str, expected: tuple[int, ...]) -> np.ndarray:
        if key not in state:
            raise ValueError(f"{key} is missing")
        if np.shape(state[key]) != expected:
            raise ValueError(f"{key} has shape {np.shape(state[key])} where {expected} is needed")
        return np.asarray(state[key], np.float64)

    *size, before, after = shape  # a 1x1 kernel is a matrix
    kernel = entry(f"{name}.conv.weight", (after, before, *(size or (1, 1)))).transpose(2, 3, 1, 0).reshape(shape)
    statistics = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (entry(f"{name}.bn.{key}", (after,)) for key in statistics)
    scale = scale / np.sqrt(variance + EPSILON)
    return {"kernel": np.asarray(kernel * scale, np.float32), "bias": np.asarray(shift - mean * scale, np.float32)}
