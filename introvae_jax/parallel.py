"""Data parallelism: distributes the step over devices. The only file that names a device axis or a mesh."""

from collections.abc import Callable
import dataclasses

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from introvae_jax.errors import UserError
from introvae_jax.trees import PyTree

AXIS = "replicas"


@dataclasses.dataclass(frozen=True)
class Replicas:
    """The devices that train one model: `local` in this process, `count` in all processes.

    With a single device there are no collectives: XLA compiles the plain program.
    """

    local: tuple[jax.Device, ...]
    count: int

    @property
    def axis_name(self) -> str | None:
        """The device axis for the networks' batch statistics; None for a single device."""
        return AXIS if self.count > 1 else None

    def mean(self, values: jax.Array) -> jax.Array:
        """Mean of values [B, ...] over the global batch, [...]."""
        return self.average(jnp.mean(values, axis=0))

    def average(self, tree: PyTree) -> PyTree:
        """Mean of each leaf over the devices."""
        return jax.lax.pmean(tree, AXIS) if self.count > 1 else tree

    def shard(self, x: jax.Array, local_batch: int) -> jax.Array:
        """This device's rows of a global batch."""
        if self.count == 1:
            return x
        start = jax.lax.axis_index(AXIS) * local_batch
        return jax.lax.dynamic_slice_in_dim(x, start, local_batch)

    def check_batch(self, batch_size: int) -> None:
        """Raises UserError if a global batch cannot be split evenly over the devices."""
        if batch_size % self.count:
            raise UserError(
                f"config.batch_size = {batch_size}: must be a multiple of the number of devices, {self.count}"
            )

    def map(self, step: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
        """Maps `step(state, batch)` over the devices. The state is replicated and donated; the batch is split."""
        return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0, devices=self._devices)

    def lower(self, step: Callable[[PyTree, PyTree], PyTree], state: PyTree, batch: PyTree) -> jax.stages.Lowered:
        """Lowers `map(step)` for the shapes of `state` and of the global `batch`.

        Unlike jax.pmap, it accepts devices that exist for the compiler only.
        """
        whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
        mapped = jax.shard_map(
            step, mesh=self.sharding.mesh, in_specs=(whole, split), out_specs=whole, check_vma=False
        )  # fmt: skip

        def placed(tree: PyTree, *axes: str) -> PyTree:
            sharding = self._sharding(*axes)
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

        return jax.jit(mapped, donate_argnums=0).lower(placed(state), placed(batch, AXIS))

    def map_resident(self, step: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree, PyTree], PyTree]:
        """Maps `step` over rows [K, B] of replicated images: K steps in one program. Terms are stacked if K > 1."""

        def steps(state: PyTree, rows: jax.Array, images: jax.Array) -> PyTree:
            if len(rows) == 1:  # XLA would not remove the loop
                return step(state, images[rows[0]])
            return jax.lax.scan(lambda state, batch: step(state, images[batch]), state, rows)

        return jax.pmap(
            steps, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0, devices=self._devices
        )

    @property
    def _devices(self) -> list[jax.Device] | None:
        return None if self.count == jax.device_count() else list(self.local)

    def replicate(self, tree: PyTree) -> PyTree:
        """Replicates host or device arrays over the local devices."""
        return jax.device_put(tree, self.sharding)

    def to_global(self, tree: PyTree) -> PyTree:
        """Converts replicated arrays to global arrays of all processes, the form in which they are saved."""
        return self._convert(multihost_utils.host_local_array_to_global_array, tree)

    def to_local(self, tree: PyTree) -> PyTree:
        """Converts global arrays of `to_global` to arrays replicated over the local devices."""
        return self._convert(multihost_utils.global_array_to_host_local_array, tree)

    @property
    def sharding(self) -> jax.sharding.NamedSharding:
        """The sharding of the state: replicated over the local devices."""
        return self._sharding()

    def split(self, batch: np.ndarray) -> jax.Array:
        """Splits a process's part of a batch, [B_local, ...] -> [devices, B_local / devices, ...], on the devices."""
        shape = (len(self.local), batch.shape[0] // len(self.local), *batch.shape[1:])
        return jax.device_put(batch.reshape(shape), self._sharding(AXIS))

    def spread(self, batch: np.ndarray) -> jax.Array:
        """Shards the rows of a batch [B, ...] over the local devices, for jit; one device if B is uneven."""
        even = batch.shape[0] % len(self.local) == 0
        return jax.device_put(batch, self._sharding(AXIS) if even else self.sharding)

    def split_rows(self, rows: np.ndarray) -> jax.Array:
        """Splits rows of K global batches, [K, B] -> [devices of this process, K, B / all devices], on the devices."""
        by_device = rows.reshape(rows.shape[0], self.count, -1).swapaxes(0, 1)
        first = jax.process_index() * len(self.local) if self.count > len(self.local) else 0
        return jax.device_put(by_device[first : first + len(self.local)], self._sharding(AXIS))

    @property
    def loops_are_fast(self) -> bool:
        """True if several steps in one program are faster. XLA's CPU backend is slow at convolutions in a loop."""
        return self.local[0].platform != "cpu"

    def require_memory(self, needed: int, purpose: str) -> None:
        """Raises UserError if a device reports fewer than `needed` free bytes."""
        for device in self.local:
            stats = device.memory_stats() or {}  # None on a CPU
            free = stats.get("bytes_limit", needed) - stats.get("bytes_in_use", 0)
            if free < needed:
                raise UserError(
                    f"{purpose} take {needed / 2**30:.2f} GiB, and {device} has {free / 2**30:.2f} GiB free; "
                    "use --config.data.cache=host"
                )

    def _convert(self, convert: Callable[..., jax.Array], tree: PyTree) -> PyTree:
        """Applies `convert` to every replicated array; returns the tree unchanged in a single process."""
        if self.count == len(self.local):
            return tree
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()), AXIS)
        return jax.tree.map(lambda x: convert(x, mesh, jax.sharding.PartitionSpec()), tree)

    def _sharding(self, *axes: str) -> jax.sharding.NamedSharding:
        mesh = jax.sharding.Mesh(np.asarray(self.local), AXIS)
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def replicas(local: tuple[jax.Device, ...] | None = None) -> Replicas:
    """All devices of all processes; in a single process, optionally only the `local` ones."""
    if local is not None:
        return Replicas(tuple(local), len(local))
    return Replicas(tuple(jax.local_devices()), jax.device_count())


def local_replicas() -> Replicas:
    """The devices of this process only, for inference."""
    return replicas(tuple(jax.local_devices()))
