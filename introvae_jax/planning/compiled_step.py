"""Compiles the training step of a config and reads the compiler's analysis. Needs no images and runs no step."""

from collections.abc import Sequence
import dataclasses
import re
import time

import jax
import ml_collections
import numpy as np

from introvae_jax import parallel, progress
from introvae_jax.errors import UserError, one_line
from introvae_jax.experiment import Experiment, batch_shape
from introvae_jax.training.state import State

NO_WORK = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device, as the compiler assigns them. state: input and output share memory. code: of the program."""

    state: int
    batch: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        return self.state + self.batch + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiler's analysis of a step on one device.

    batch: images on that device. flops: floating-point operations. moved: bytes that the operations read and write.
    operations: number of operations that the device starts one after the other. seconds: compilation time.
    """

    batch: int
    memory: Memory
    flops: float
    moved: float
    operations: int
    seconds: float


def parameters(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """Parameters of encoder and decoder."""
    state = _state_shapes(config)
    networks = state.encoder, state.decoder
    return tuple(sum(leaf.size for leaf in jax.tree.leaves(network.params)) for network in networks)


def exchanges(config: ml_collections.ConfigDict) -> int:
    """The estimated number of all-reduces per step: each BatchNorm has one in each forward and each backward pass.

    The encoder makes three passes, or five if the decoder's loss uses the updated encoder; the decoder makes two. The
    gradients and terms need a few more.
    """
    state = _state_shapes(config)
    passes = (5 if config.objective.update_order == "alternating" else 3), 2
    of_norms = 0
    if config.model.norm == "batch":
        for network, times in zip((state.encoder, state.decoder), passes, strict=True):
            names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(network.params)]
            of_norms += 2 * times * sum(name.endswith("['scale']") for name in names)
    return of_norms + 3


def compile_step(config: ml_collections.ConfigDict, devices: Sequence[jax.Device]) -> jax.stages.Compiled:
    """The step of `config.objective`, compiled for `devices`, as `parallel.Replicas.map` runs it on them.

    Raises UserError if the compiler finds that the program needs more memory than a device has.
    """
    replicas = parallel.Replicas(tuple(devices), len(devices))
    replicas.check_batch(config.batch_size)
    experiment = Experiment(config, replicas)
    step = experiment.make_step(config.objective.name)
    try:
        return replicas.lower(step, jax.eval_shape(experiment.init_state), batch_shape(config)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"config.batch_size = {config.batch_size} does not fit a device ({one_line(error)[:200]}); "
            "use a smaller one, or --config.model.remat=True"
        ) from error


def measure(config: ml_collections.ConfigDict, device: jax.Device, batch: int) -> Program:
    """Compiles and analyses the program for one device with `batch` images. Announces the phase."""
    config = config.copy_and_resolve_references()
    config.batch_size = batch
    with progress.phase(f"compiling the step for {device.device_kind}, batch {batch}", at_once=True):
        since = time.perf_counter()
        compiled = compile_step(config, [device])
        return describe(compiled, batch, _bytes(batch_shape(config)), time.perf_counter() - since)


def describe(compiled: jax.stages.Compiled, batch: int, batch_bytes: int, seconds: float) -> Program:
    """The compiler's analysis of `compiled`. batch_bytes: bytes of one device's images."""
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    if memory is None or cost is None or text is None:
        raise UserError("the compiler of this device does not report memory or cost; name another --target")
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes  # outputs beside the donated state: the terms
    return Program(
        batch=batch,
        memory=Memory(
            state=memory.argument_size_in_bytes - batch_bytes, batch=batch_bytes,
            temporaries=memory.temp_size_in_bytes + fresh, code=memory.generated_code_size_in_bytes,
        ),
        flops=cost["flops"], moved=cost["bytes accessed"], operations=operations(text), seconds=seconds,
    )  # fmt: skip


def operations(text: str) -> int:
    """What the entry computation of an optimised program runs: fusions, convolutions, copies; no names of values."""
    entry = text[text.index("ENTRY ") :]
    found = re.findall(r"^\s+(?:ROOT )?%?\S+ = .*?\s([a-z][a-z0-9-]*)\(", entry[: entry.index("\n}")], re.MULTILINE)
    return sum(name not in NO_WORK for name in found)


def _state_shapes(config: ml_collections.ConfigDict) -> State:
    """Shapes of the state; nothing is allocated."""
    return jax.eval_shape(Experiment(config, parallel.Replicas((), 1)).init_state)


def _bytes(shape: jax.ShapeDtypeStruct) -> int:
    return int(np.prod(shape.shape)) * shape.dtype.itemsize
