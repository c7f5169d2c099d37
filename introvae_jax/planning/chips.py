"""Accelerators with their published specifications, and estimates of the time of a step on each."""

import dataclasses

# The share of memory that programs can use. On a GPU: JAX's default for XLA_PYTHON_CLIENT_MEM_FRACTION (docs.jax.dev,
# "GPU memory allocation"). On a TPU the runtime reserves a little.
USABLE = {"gpu": 0.75, "tpu": 0.97}
# Assumed, not measured. A GPU starts the kernels of a step one after the other, 2 to 5 us apart even for small kernels.
# A TPU runs a compiled program without launches, but each operation takes at least this time.
LAUNCH = {"gpu": 3e-6, "tpu": 1e-6}  # seconds per operation
LATENCY = {"gpu": 20e-6, "tpu": 10e-6}  # seconds per all-reduce among the chips of one machine, for any size


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    tflops: dense bfloat16 peak, 1e12 a second. float32: the share of it that JAX's default precision reaches on
    float32 arrays (TF32 on GPUs, one bfloat16 pass on TPUs). memory: GiB. bandwidth: of it, GB/s. link: GB/s that leave
    a chip in an all-reduce over its neighbours: all its links together, one direction.
    """

    name: str
    kind: str
    tflops: float
    memory: float
    bandwidth: float
    link: float

    @property
    def usable(self) -> float:
        """Bytes of memory that a program can use."""
        return self.memory * USABLE[self.kind] * 2**30

    def peak(self, dtype: str) -> float:
        """Peak FLOP/s for convolutions of `dtype`, "float32" or "bfloat16"."""
        return self.tflops * 1e12 * (0.5 if (self.kind, dtype) == ("gpu", "float32") else 1.0)

    def seconds(self, flops: float, moved: float, dtype: str, utilisation: float = 1.0) -> float:
        """Seconds of a program that reaches `utilisation`, in (0, 1], of the peak that limits it.

        flops: of its arithmetic. moved: bytes that it reads and writes. The time is the larger of the two limits
        (the roofline model, Williams et al. 2009).
        """
        return max(flops / self.peak(dtype), moved / (self.bandwidth * 1e9)) / utilisation

    def launching(self, operations: int) -> float:
        """The least seconds that a program with this number of operations takes, for any batch."""
        return operations * LAUNCH[self.kind]

    def exchanging(self, number: int, size: float, chips: int) -> float:
        """Seconds of `number` ring all-reduces of `size` bytes in total among `chips`, without overlap."""
        return number * LATENCY[self.kind] + 2 * (chips - 1) / chips * size / (self.link * 1e9)


# NVIDIA: data sheets of A100 (2021), H100 SXM (2023), H200 SXM (2024), L4 (2023; its 242 TFLOP/s are with sparsity) and
# the Ada whitepaper (RTX 4090); link is half of NVLink's two-way figure, or of PCIe 4.0 x16.
# Google: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e; link is half of the two-way ICI figure a chip.
CHIPS = (
    Chip("A100-40", "gpu", 312, 40, 1_555, 300),
    Chip("A100-80", "gpu", 312, 80, 2_039, 300),
    Chip("H100", "gpu", 989, 80, 3_350, 450),
    Chip("H200", "gpu", 989, 141, 4_800, 450),
    Chip("L4", "gpu", 121, 24, 300, 32),
    Chip("RTX 4090", "gpu", 165, 24, 1_008, 32),
    Chip("TPU v4", "tpu", 275, 32, 1_228, 150),
    Chip("TPU v5e", "tpu", 197, 16, 819, 200),
    Chip("TPU v5p", "tpu", 459, 95, 2_765, 600),
    Chip("TPU v6e", "tpu", 918, 32, 1_640, 400),
)
