"""The training step as a compiled program, made from a config alone: no images, no work directory, no arrays."""

from collections.abc import Sequence
import dataclasses
import pathlib
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from introvae_jax import model, parallel, progress
from introvae_jax.data.source import Splits
from introvae_jax.errors import UserError, one_line
from introvae_jax.training.run import Run

NO_WORK = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")
NO_IMAGES = Splits((None,), (), "")  # the length of a split is all that a run asks of it before it trains


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device, as its compiler lays them out. state: in and out in one place. code: of the program."""

    state: int
    batch: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        return self.state + self.batch + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiler says of one step on one device.

    batch: images on that device. flops: floating-point operations. moved: bytes that the program's operations read and
    write. operations: that a device starts one after the other. seconds: that compiling took.
    """

    batch: int
    memory: Memory
    flops: float
    moved: float
    operations: int
    seconds: float


def parameters(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """Parameters of encoder and decoder."""
    state = jax.eval_shape(run_without_images(config, parallel.Replicas((), 1)).fresh_state)
    return tuple(sum(leaf.size for leaf in jax.tree.leaves(player.params)) for player in (state.encoder, state.decoder))


def exchanges(config: ml_collections.ConfigDict) -> int:
    """All-reduces of a step on several devices, estimated: a BatchNorm exchanges moments in each pass and back.

    The encoder passes three times, five where the decoder's loss sees the updated one; the decoder twice. The gradients
    and terms take a few more.
    """
    state = jax.eval_shape(run_without_images(config, parallel.Replicas((), 1)).fresh_state)
    passes = (5 if config.objective.update_order == "alternating" else 3), 2
    of_norms = 0
    if config.model.norm == "batch":
        for player, times in zip((state.encoder, state.decoder), passes, strict=True):
            names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(player.params)]
            of_norms += 2 * times * sum(name.endswith("['scale']") for name in names)
    return of_norms + 3


def compile_step(config: ml_collections.ConfigDict, devices: Sequence[jax.Device]) -> jax.stages.Compiled:
    """The step of `config.objective`, compiled for `devices`, as `parallel.Replicas.map` runs it on them.

    Raises UserError if the compiler finds that the program needs more memory than a device has.
    """
    replicas = parallel.Replicas(tuple(devices), len(devices))
    replicas.check_batch(config.batch_size)
    run = run_without_images(config, replicas)
    mesh = replicas.sharding.mesh
    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(parallel.AXIS)
    # What jax.pmap is made of; it also takes devices that are not there.
    step = jax.shard_map(
        run.make_step(config.objective.name), mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False
    )
    state = _on(jax.eval_shape(run.fresh_state), jax.sharding.NamedSharding(mesh, whole))
    images = _on(_batch(config), jax.sharding.NamedSharding(mesh, split))
    try:
        return jax.jit(step, donate_argnums=0).lower(state, images).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"config.batch_size = {config.batch_size} does not fit a device ({one_line(error)[:200]}); "
            "plan a smaller one, or --config.model.remat=True"
        ) from error


def measure(config: ml_collections.ConfigDict, device: jax.Device, batch: int) -> Program:
    """The program for one device with `batch` images; announced, for the compiler takes long."""
    config = config.copy_and_resolve_references()
    config.batch_size = batch
    with progress.phase(f"compiling the step for {device.device_kind}, batch {batch}", at_once=True):
        since = time.perf_counter()
        compiled = compile_step(config, [device])
        return describe(compiled, batch, _bytes(_batch(config)), time.perf_counter() - since)


def describe(compiled: jax.stages.Compiled, batch: int, batch_bytes: int, seconds: float) -> Program:
    """What the compiler of `compiled` says of it. batch_bytes: of one device's images."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes  # outputs beside the donated state: the terms
    return Program(
        batch=batch,
        memory=Memory(
            state=memory.argument_size_in_bytes - batch_bytes, batch=batch_bytes,
            temporaries=memory.temp_size_in_bytes + fresh, code=memory.generated_code_size_in_bytes,
        ),
        flops=cost["flops"], moved=cost["bytes accessed"], operations=operations(compiled.as_text()), seconds=seconds,
    )  # fmt: skip


def operations(text: str) -> int:
    """What the entry computation of an optimised program runs: fusions, convolutions, copies; no names of values."""
    entry = text[text.index("ENTRY ") :]
    found = re.findall(r"^\s+(?:ROOT )?%?\S+ = .*?\s([a-z][a-z0-9-]*)\(", entry[: entry.index("\n}")], re.MULTILINE)
    return sum(name not in NO_WORK for name in found)


def run_without_images(config: ml_collections.ConfigDict, replicas: parallel.Replicas) -> Run:
    """What a run is made of, but for its images and its place on disk."""
    return Run(config, pathlib.Path(), NO_IMAGES, replicas)


def _batch(config: ml_collections.ConfigDict) -> jax.ShapeDtypeStruct:
    """What reaches the step: images as bytes, or points."""
    dtype = jnp.float32 if config.data.source == "density" else jnp.uint8
    return jax.ShapeDtypeStruct((config.batch_size, *model.example_shape(config)), dtype)


def _bytes(shape: jax.ShapeDtypeStruct) -> int:
    return int(np.prod(shape.shape)) * shape.dtype.itemsize


def _on(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
