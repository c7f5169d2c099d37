"""Collectives of the compiled step on 1, 2, 4 and 8 devices, and an analytical estimate of its scaling.

    python -m benchmarks.weak_scaling --config=configs/celebahq.py:128
    python -m benchmarks.weak_scaling --config=configs/celebahq.py:128 --target=tpu_v5e --devices=4

Compiles only; the devices are simulated CPUs, or TPUs that are not there (pip install libtpu). The batch grows with
the devices (weak scaling). Gradients are 4 bytes a parameter; what is beside them are BatchNorm's
moments, their gradients, and the terms of the log.
"""

import dataclasses
import os
import sys

# Before JAX starts: as in tests/conftest.py.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

from absl import flags
from ml_collections import config_flags

from introvae_jax import config as config_lib
from introvae_jax import errors
from introvae_jax.planning import collectives, compiled_step, target
from introvae_jax.planning.chips import CHIPS, Chip

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment to compile.")
_TARGET = flags.DEFINE_enum("target", target.HERE, target.TARGETS, "Whose compiler.")
_DEVICES = flags.DEFINE_multi_integer("devices", [1, 2, 4, 8], "How many devices; may be given several times.")
_BATCH = flags.DEFINE_integer("batch", None, "Images a device; the config's whole batch without it.", lower_bound=1)
_UTILISATION = flags.DEFINE_float("utilisation", 0.35, "Assumed share of a chip's peak.", lower_bound=0.001)
_SMALL = 64 * 1024  # bytes: below it a collective's time is its latency
NAMED = {chip.name: chip for chip in CHIPS}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Several chips. latency: seconds of a collective of no bytes, ASSUMED."""

    name: str
    chip: Chip
    count: int
    latency: float

    def exchange(self, sizes: list[int]) -> float:
        """Seconds of all-reduces of these bytes, one after the other, each a ring (Patarasuk and Yuan 2009)."""
        share = 2 * (self.count - 1) / self.count
        return sum(self.latency + share * size / (self.chip.link * 1e9) for size in sizes)


def torus(name: str, chip: Chip, sides: tuple[int, int], wrapped: bool) -> Machine:
    """A TPU slice: 2 us to start, and 1 us for each of the hops there and back along both axes."""
    hops = sum(2 * (side // 2 if wrapped else side - 1) for side in sides)
    return Machine(name, chip, sides[0] * sides[1], 2e-6 + 1e-6 * hops)


MACHINES = (
    Machine("8 A100-80, NVLink", NAMED["A100-80"], 8, 20e-6),
    Machine("8 H100, NVLink", NAMED["H100"], 8, 20e-6),
    torus("8 TPU v5e (2x4)", NAMED["TPU v5e"], (2, 4), False),
    torus("64 TPU v5e (8x8)", NAMED["TPU v5e"], (8, 8), False),
    torus("256 TPU v5e (16x16)", NAMED["TPU v5e"], (16, 16), True),
)


def main(_) -> None:
    config = _CONFIG.value
    config_lib.validate(config)
    share = _BATCH.value or config.batch_size
    gradients = 4 * sum(compiled_step.parameters(config))
    print(f"gradients of all parameters: {gradients:,} bytes; {share} images a device\n")
    print("| devices | collectives | below 64 KiB | bytes | beside the gradients |\n|---|---|---|---|---|")
    for count in sorted(_DEVICES.value):
        config.batch_size = share * count
        compiled = compiled_step.compile_step(config, target.devices(_TARGET.value, count))
        found = list(collectives.find(compiled.as_text()))
        sizes = [one.bytes for one in found]
        kinds = ", ".join(f"{number} {kind}" for kind, (number, _) in collectives.by_kind(compiled.as_text()).items())
        small = sum(size < _SMALL for size in sizes)
        rest = f"{sum(sizes) - gradients:,}" if sizes else "-"
        print(f"| {count} | {kinds or 'none'} | {small} | {sum(sizes):,} | {rest} |", flush=True)
    cost = compiled.cost_analysis()  # of one device
    print(f"\n{cost['flops']:.3g} FLOP, {cost['bytes accessed']:.3g} bytes read and written on each device\n")
    print("\n".join(estimate(cost["flops"], cost["bytes accessed"], sizes, config.model.dtype)))


def estimate(flops: float, moved: float, sizes: list[int], dtype: str) -> list[str]:
    """The table: time of a step on each machine, nothing overlapped."""
    rows = ["| machine | latency, us | computes, ms | small exchanges, ms | large ones, ms | efficiency |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    small, large = [s for s in sizes if s < _SMALL], [s for s in sizes if s >= _SMALL]
    for machine in MACHINES:
        chip = machine.chip
        computes = chip.seconds(flops, moved, dtype, _UTILISATION.value)
        times = machine.exchange(small), machine.exchange(large)
        efficiency = computes / (computes + sum(times))
        rows.append(
            f"| {machine.name} | {machine.latency * 1e6:.0f} | {computes * 1e3:.1f} | {times[0] * 1e3:.2f} | "
            f"{times[1] * 1e3:.2f} | {efficiency:.0%} |"
        )
    return rows


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    sys.exit(errors.run(main))
