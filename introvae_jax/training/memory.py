"""A lower bound on the memory of a step, checked before compilation.

The bound counts the arrays that every compiler must keep at the same time: the state, the images, and the input of
every convolution and dense layer in one forward pass through both networks, which the kernel gradients need. For a
recomputed block (model.remat) only its input counts. A compiled step takes 2 to 20 times the activations of this bound
(docs/memory.md): a batch above the bound cannot run; a batch below it may still run out of memory.
"""

from collections.abc import Iterator, Mapping
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from introvae_jax.errors import UserError
from introvae_jax.experiment import build_networks, example_shape
from introvae_jax.parallel import Replicas

COPIES = 4  # arrays per parameter in the state: the parameter, two Adam moments, the EMA
LAYERS = ("conv_general_dilated", "dot_general")
RECOMPUTED = ("remat", "remat2", "checkpoint")  # names of jax.checkpoint in a jaxpr, by JAX version
GIB = 2**30


def least(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """The fewest bytes that a device needs: for the state, and for each image of its batch."""
    networks = [network.clone(axis_name=None) for network in build_networks(config)]
    example = jnp.zeros((1, *example_shape(config)))
    inputs = example, jnp.zeros((1, config.model.z_dim))
    state, activations = 0, 0
    for network, x in zip(networks, inputs, strict=True):
        variables = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
        state += COPIES * sum(map(_bytes, jax.tree.leaves(variables)))
        forward = jax.make_jaxpr(lambda params, x, network=network: network.apply({"params": params}, x))(variables, x)
        activations += sum(_kept(forward.jaxpr))
    return state, activations + example.size  # the image itself as bytes


def require_fit(config: ml_collections.ConfigDict, replicas: Replicas) -> None:
    """Raises UserError if the batch cannot be split over `replicas`, or if the bound exceeds a device's memory."""
    replicas.check_batch(config.batch_size)
    device = replicas.local[0]
    room = available(device)
    if room is None:
        return
    if device.platform == "cpu":
        room //= len(replicas.local)  # CPU devices share the machine's memory
    state, image = least(config)
    at_once = config.batch_size // replicas.count
    needed = state + at_once * image
    if needed > room:
        largest = max(0, int((room - state) // image)) * replicas.count
        remat = "" if config.model.remat or config.data.source == "density" else ", or --config.model.remat=True,"
        raise UserError(
            f"config.batch_size = {config.batch_size}: a step needs at least {needed / GIB:,.1f} GiB of memory on each "
            f"{device.device_kind} ({at_once:,} images at once) and {room / GIB:,.1f} GiB are available; reduce "
            f"--config.batch_size to at most {largest:,}{remat} (docs/memory.md)"
        )


def out_of_memory(config: ml_collections.ConfigDict, replicas: Replicas) -> str:
    """The error message for a device that ran out of memory."""
    return (
        f"out of memory with {config.batch_size // replicas.count} images of {config.data.size} pixels on "
        f"each {replicas.local[0].device_kind}. Use --config.model.remat=True "
        "or a smaller --config.batch_size (docs/memory.md)"
    )


def available(device: jax.Device) -> int | None:
    """Bytes that programs can use on a device; for a CPU, on the whole machine. None if unknown."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return _machine() if limit is None and device.platform == "cpu" else limit


def _machine(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Free memory and swap of a Linux machine in bytes, at most the limit of the control group; None elsewhere."""
    try:
        text = (root / "proc/meminfo").read_text()
        group = re.search(r"^0::/(.*)$", (root / "proc/self/cgroup").read_text(), re.MULTILINE)
    except OSError:
        return None
    found = re.findall(r"^(?:MemAvailable|SwapFree):\s+(\d+) kB$", text, re.MULTILINE)
    limits = [sum(map(int, found)) * 1024] if found else []
    groups = root / "sys/fs/cgroup"
    of_group = [groups / group[1] / "memory.max"] if group else []
    for path in (*of_group, groups / "memory.max", groups / "memory/memory.limit_in_bytes"):
        if path.is_file() and (limit := path.read_text().strip()).isdigit():  # or "max"
            limits.append(int(limit))
    return min(limits, default=None)


def _kept(jaxpr: Any) -> Iterator[int]:
    """Yields the bytes that the backward pass of `jaxpr` needs from each layer."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in LAYERS:
            yield _bytes(equation.invars[0].aval)
        elif name in RECOMPUTED:
            yield max(_bytes(value.aval) for value in equation.invars if value.aval.shape[:1] == (1,))
        else:
            for inner in _inner(equation.params):
                yield from _kept(inner)


def _inner(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs that an equation calls."""
    for value in parameters.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def _bytes(array: Any) -> int:
    return array.size * array.dtype.itemsize
