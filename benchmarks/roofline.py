"""Roofline of a training step, layer by layer: limits by arithmetic and by memory traffic.

    python -m benchmarks.roofline --config=configs/celebahq.py --config.model.dtype=bfloat16               # this device
    python -m benchmarks.roofline --config=configs/celebahq.py --config.model.dtype=bfloat16 --chip=H200   # on paper

A convolution or dense layer does its FLOPs at each pass (forward, back to the input, back to the kernel) and reads or
writes its input and its output. A norm reads its input twice and writes once, and on the way back reads input and slope
twice and writes once; what is elementwise beside it is fused into it. Nothing else moves. Each pass of a layer takes
the longer of FLOPs / peak and bytes / bandwidth. The sum bounds a step from below, and its FLOPs over that time at the
peak are the share of the peak that no program of these layers exceeds. Peak and bandwidth are measured, or a maker's
(--chip).
"""

import collections
import dataclasses
import math

from absl import flags
from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_flags

from benchmarks import peaks
from introvae_jax import config as config_lib
from introvae_jax import errors, model, parallel
from introvae_jax.experiment import Experiment
from introvae_jax.nets.layers import Norm
from introvae_jax.planning import chips

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment.")
_CHIP = flags.DEFINE_string("chip", "", "One of introvae_jax.plan's chips, instead of this device.")

# How often a step takes a layer: forward, back to its input, back to its parameters.
PASSES = {
    "simultaneous": {"encoder": (3, 3, 3), "decoder": (2, 3, 2)},
    "alternating": {"encoder": (5, 5, 3), "decoder": (2, 3, 2)},
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer for a batch. flops: forward, 0 of a norm. bytes_in, bytes_out: of its input and output."""

    network: str
    place: str
    flops: float
    bytes_in: int
    bytes_out: int

    def passes(self, forward: int, to_input: int, to_params: int) -> list[tuple[int, float, float]]:
        """How often, FLOPs and bytes of each kind of pass."""
        if self.flops == 0:
            return [(forward, 0.0, 3.0 * self.bytes_in), (to_input, 0.0, 5.0 * self.bytes_in)]
        return [(forward + to_input + to_params, self.flops, float(self.bytes_in + self.bytes_out))]


def main(_) -> None:
    config = _CONFIG.value
    config_lib.validate(config)
    name, peak, bandwidth = device(config.model.dtype)
    times, flops = collections.Counter(), collections.Counter()
    bound = collections.defaultdict(set)
    for layer in layers(config):
        key = f"{layer.network}, {layer.place}, {'norm' if layer.flops == 0 else 'product'}"
        for often, work, moved in layer.passes(*PASSES[config.objective.update_order][layer.network]):
            times[key] += often * max(work / peak, moved / bandwidth)
            flops[key] += often * work
            bound[key].add("arithmetic" if work / peak > moved / bandwidth else "memory")
    total = sum(times.values())
    print(f"{name}: {peak / 1e12:.3g} TFLOP/s, {bandwidth / 1e9:.0f} GB/s; batch {config.batch_size}\n")
    print("| layers | TFLOP | at least, ms | share of the time | bound by |\n|---|---|---|---|---|")
    for key, seconds in times.items():
        told = " and ".join(sorted(bound[key]))
        print(f"| {key} | {flops[key] / 1e12:.3g} | {1e3 * seconds:.3g} | {seconds / total:.1%} | {told} |")
    share = sum(flops.values()) / peak / total
    print(f"| all | {sum(flops.values()) / 1e12:.3g} | {1e3 * total:.3g} | | at most {share:.0%} of the peak |")


def device(dtype: str) -> tuple[str, float, float]:
    """Name, FLOP/s and bytes/s of --chip, or of this device as measured. Raises UserError for an unknown chip."""
    if not _CHIP.value:
        return jax.devices()[0].device_kind, peaks.matrix_peak(dtype), peaks.bandwidth()
    chip = next((chip for chip in chips.CHIPS if chip.name == _CHIP.value), None)
    if chip is None:
        raise errors.UserError(f"--chip={_CHIP.value}: one of {', '.join(chip.name for chip in chips.CHIPS)}")
    return chip.name, chip.peak(dtype), 1e9 * chip.bandwidth


def layers(config: ml_collections.ConfigDict) -> list[Layer]:
    """Every convolution, dense layer and norm of both networks, in the order in which they are called."""
    run = Experiment(config, parallel.Replicas((jax.devices()[0],), 1))
    width = jnp.dtype(config.model.dtype).itemsize
    found: list[Layer] = []
    shapes = (config.batch_size, *model.example_shape(config)), (config.batch_size, config.model.z_dim)
    for network, module, shape in zip(("encoder", "decoder"), run.networks, shapes, strict=True):

        def record(call, args, kwargs, context, network=network):
            out = call(*args, **kwargs)
            layer, x = context.module, args[0]
            counted = isinstance(layer, (nn.Conv, nn.Dense)) or (isinstance(layer, Norm) and layer.kind != "none")
            if counted and context.method_name == "__call__":
                fan_in = 0 if isinstance(layer, Norm) else math.prod(layer.variables["params"]["kernel"].shape[:-1])
                place = f"{x.shape[1]} px" if x.ndim == 4 else "dense"
                found.append(Layer(network, place, 2.0 * out.size * fan_in, width * x.size, width * out.size))
            return out

        with nn.intercept_methods(record):
            jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    return found


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
