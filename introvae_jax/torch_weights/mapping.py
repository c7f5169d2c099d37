"""Maps the arrays of the released PyTorch networks to the Flax networks.

PyTorch's names (NCHW): encoder.main.0, .main.1, .main.res_in_SIZE.{conv_expand,conv1,bn1,conv2,bn2}, .fc, and likewise
decoder.fc.0, .main.res_in_SIZE..., .main.predict; SIZE is the resolution at the block's input, in both networks.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from introvae_jax.errors import UserError
from introvae_jax.nets import residual
from introvae_jax.torch_weights.unpickler import Object

BASE = 4  # height and width at the dense layer of both networks
MAX_DEPTH, MAX_NODES = 32, 100_000  # of containers, which may contain each other

_LAYERS = {
    "encoder": {"stem": "main.0", "stem_norm": "main.1", "moments": "fc"},
    "decoder": {"project": "fc.0", "predict": "main.predict"},
}
_IN_BLOCK = {"expand": "conv_expand", "conv1": "conv1", "norm1": "bn1", "conv2": "conv2", "norm2": "bn2"}
_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class Structure:
    """The structure of the networks, from the shapes of their arrays. channels: from the full resolution down."""

    image_size: int
    image_channels: int
    channels: tuple[int, ...]
    z_dim: int
    expand_equal: bool

    def networks(self, block_norm: str) -> dict[str, Any]:
        """Encoder and decoder of this structure."""
        options: dict[str, Any] = {
            "channels": self.channels, "z_dim": self.z_dim, "block_norm": block_norm,
            "expand_equal": self.expand_equal,
        }  # fmt: skip
        decoder = residual.Decoder(**options, image_channels=self.image_channels)
        return {"encoder": residual.Encoder(**options), "decoder": decoder}


def named_arrays(content: Any, where: str) -> dict[str, np.ndarray]:
    """The arrays of the networks by name, "encoder.fc.bias".

    content: a state dict, whole networks, or either nested in containers. DataParallel's "module." and the keys around
    the networks are removed; optimizers are ignored. where: the file, for errors. Raises UserError if there is no
    encoder and decoder, or several.
    """
    groups: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    others = []
    for path, array in _leaves(content, where):
        parts = tuple(part for part in ".".join(path).split(".") if part != "module")
        if any(part.startswith("optim") for part in parts) or parts[-1:] == ("num_batches_tracked",):
            continue
        start = next((i for i, part in enumerate(parts) if part in _LAYERS), None)
        if start is None:
            others.append(parts)
            continue
        name, group = ".".join(parts[start:]), groups.setdefault(parts[:start], {})
        if name in group:
            raise UserError(f"{where}: {name} occurs twice; save the state dict of a single model")
        group[name] = array
    if not groups:
        seen = ", ".join(".".join(parts) for parts in others[:3]) or "no array at all"
        raise UserError(f"{where}: no encoder and decoder in it (there is {seen}): not an image model of this family")
    if len(groups) > 1:
        listed = ", ".join(sorted(".".join(prefix) or "the top" for prefix in groups)[:5])
        raise UserError(f"{where}: {len(groups)} models in it (at {listed}); save the state dict of one alone")
    ((prefix, named),) = groups.items()
    left_over = [".".join(parts) for parts in others if parts[: len(prefix)] == prefix]
    if left_over:
        raise UserError(f"{where}: {_some(left_over)} not part of an encoder or decoder")
    return named


def _leaves(content: Any, where: str) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Every array with the keys that lead to it. Raises UserError if the nesting is too deep."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = 0
    while pending:
        path, node = pending.pop()
        seen += 1
        if len(path) > MAX_DEPTH or seen > MAX_NODES:
            raise UserError(f"{where}: its containers are nested too deep to be weights; save the state dict alone")
        if isinstance(node, np.ndarray):
            yield path, node
        elif isinstance(node, Object):
            state = node.state if isinstance(node.state, Mapping) else {}
            inside = (state.get(kind) for kind in ("_modules", "_buffers", "_parameters"))
            pending += [(path, part) for part in inside if isinstance(part, Mapping)]
        elif isinstance(node, Mapping):
            pending += [((*path, _text(key)), value) for key, value in reversed(list(node.items()))]


def _text(key: Any) -> str:
    """A key as a part of a name; "#" for other keys, such as the numbers of an optimizer's parameters."""
    if not isinstance(key, str) or len(key) > 200:
        return "#"
    return "".join(c if c.isprintable() else "?" for c in key)


def structure(named: Mapping[str, np.ndarray], where: str) -> Structure:
    """The structure of the networks. where: the file, for errors. Raises UserError if the shapes are inconsistent."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in named:
            raise UserError(f"{where}: {name} is missing")
        if named[name].ndim != dimensions or 0 in named[name].shape:
            raise UserError(f"{where}: {name} has the shape {named[name].shape}: {dimensions} dimensions are needed")
        return named[name].shape

    found = (re.match(r"encoder\.main\.res_in_(\d{1,4})\.", name) for name in named)
    sizes = sorted({int(match[1]) for match in found if match}, reverse=True)
    if len(sizes) < 2 or sizes != [BASE << k for k in reversed(range(len(sizes)))]:
        listed = ", ".join(map(str, sizes)) or "none"
        raise UserError(f"{where}: encoder.main.res_in_SIZE has the sizes {listed}: every halving down to 4 is needed")
    stem = shape("encoder.main.0.weight", 4)
    widths = [shape(f"encoder.main.res_in_{size}.conv1.weight", 4)[0] for size in sizes[:-1]]
    channels = (stem[0], *widths)
    return Structure(
        image_size=2 * sizes[0], image_channels=stem[1], channels=channels,
        z_dim=shape("encoder.fc.weight", 2)[0] // 2, expand_equal=_expands_equal(named, channels, sizes, where),
    )  # fmt: skip


def _expands_equal(named: Mapping[str, Any], channels: tuple[int, ...], sizes: list[int], where: str) -> bool:
    """True if the blocks between two equal channel counts have a 1x1 convolution: all of them or none may."""
    equal = [size for size, a, b in zip(sizes, channels, channels[1:], strict=False) if a == b]
    present = {f"{net}.main.res_in_{size}.conv_expand.weight" in named for size in equal for net in _LAYERS}
    # The decoder has the same pair of channel counts at the same size, because its input there is enlarged.
    if len(present) > 1:
        raise UserError(f"{where}: some blocks of equal channel counts have a conv_expand and others have none")
    return present == {True}


def variables(named: Mapping[str, np.ndarray], networks: Mapping[str, Any], found: Structure, where: str) -> Any:
    """The variables of the Flax networks: {"encoder": {"params": ..., "batch_stats": ...}, "decoder": ...}, float32.

    named: as `named_arrays` returns it. where: the file, for errors. Raises UserError if an array is missing, left
    over, of another shape, or not of finite floating-point numbers.
    """
    inputs = {
        "encoder": jax.ShapeDtypeStruct((1, found.image_size, found.image_size, found.image_channels), jnp.float32),
        "decoder": jax.ShapeDtypeStruct((1, found.z_dim), jnp.float32),
    }
    left = dict(named)

    def take(network: str, path: tuple[str, ...], wanted: tuple[int, ...]) -> np.ndarray:
        name, shape = f"{network}.{_name(network, path)}", _released_shape(wanted)
        if name not in left:
            raise UserError(f"{where}: {name} is missing")
        array = left.pop(name)
        if array.shape != shape:
            raise UserError(f"{where}: {name} has the shape {array.shape} where {shape} is needed")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise UserError(f"{where}: {name} is of type {array.dtype}: floating-point numbers are needed")
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"{where}: {name} has values that are not finite")
        return np.ascontiguousarray(_layout(path[0], path[-1], array))

    converted = {}
    for network, module in networks.items():
        wanted = jax.eval_shape(module.init, jax.random.key(0), inputs[network])
        converted[network] = {
            kind: jax.tree_util.tree_map_with_path(
                lambda path, leaf, network=network: take(network, tuple(key.key for key in path), leaf.shape),
                wanted[kind],
            )
            for kind in ("params", "batch_stats")
        }
    if left:
        raise UserError(f"{where}: {_some(list(left))} left over: the networks here have no such layer")
    return converted


def _name(network: str, path: tuple[str, ...]) -> str:
    """The PyTorch name of the array at `path`."""
    if path[0].startswith("block_"):
        layer = f"main.res_in_{path[0].removeprefix('block_')}.{_IN_BLOCK[path[1]]}"
    else:
        layer = _LAYERS[network][path[0]]
    return f"{layer}.{_LEAVES[path[-1]]}"


def _released_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return outputs, inputs, height, width
    return shape[::-1]


def _layout(layer: str, leaf: str, array: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO and dense [out, in] -> [in, out]; flattened images from channels first to channels last."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if layer == "moments" and leaf == "kernel":
        return array.reshape(len(array), -1, BASE, BASE).transpose(2, 3, 1, 0).reshape(-1, len(array))
    if layer == "project":
        rows = array.T.reshape(*array.shape[1:], -1, BASE, BASE)
        return np.moveaxis(rows, -3, -1).reshape(array.T.shape)
    return array.T


def _some(names: list[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{first}{more} {'is' if len(names) == 1 else 'are'}"
