"""The compiler of a plan: that of this machine's devices, or a TPU's, which needs the package libtpu but no TPU."""

from collections.abc import Sequence
import importlib.util
import os

import jax
from jax.experimental import topologies

from introvae_jax.errors import UserError, one_line

HERE = "here"
# One chip of each, as libtpu names it; the options make one device of a chip's two cores.
TPUS = {
    "tpu_v4": ("v4:{}x1", {"chip_config_name": "megacore"}),
    "tpu_v5e": ("v5e:{}", {}),
    "tpu_v5p": ("v5p:{}x1", {}),
    "tpu_v6e": ("v6e:{}", {}),
}
TARGETS = (HERE, *TPUS)
GRIDS = {1: "1x1", 2: "1x2", 4: "2x2", 8: "2x4", 64: "8x8", 256: "16x16"}  # chips of one slice


def devices(target: str, count: int = 1) -> Sequence[jax.Device]:
    """`count` devices to compile for, of TARGETS. Those of a TPU exist for the compiler only.

    Raises UserError if they are not available.
    """
    if target == HERE:
        if jax.device_count() < count:
            raise UserError(f"{count} devices: this machine has {jax.device_count()}")
        return jax.devices()[:count]
    if count not in GRIDS:
        raise UserError(f"{count} devices of {target}: one of {', '.join(map(str, GRIDS))}")
    _prepare_libtpu(target)
    name, options = TPUS[target]
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name.format(GRIDS[count]), **options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--target={target}: libtpu does not compile for it here: {one_line(error)}") from error
    return topology.devices


def _prepare_libtpu(target: str) -> None:
    """Makes libtpu compile without a TPU. Call it before JAX initialises its backends."""
    if "TPU_LIBRARY_PATH" not in os.environ and importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--target={target}: the TPU's compiler is not installed: pip install libtpu")
    jax.config.update("jax_platforms", "cpu")  # a TPU of this machine may be busy training
    # With any host names set, libtpu does not query the cloud's metadata server.
    machine = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost",
               "TPU_WORKER_ID": "0"}  # fmt: skip
    for key, value in machine.items():
        os.environ.setdefault(key, value)
