"""Formats a plan: the compiler's analysis, the batch that fits on each chip, and estimated times."""

import dataclasses
import math
import textwrap

from introvae_jax.formatting import aligned, rough_duration
from introvae_jax.planning.chips import CHIPS, LATENCY, LAUNCH, Chip
from introvae_jax.planning.compiled_step import Memory, Program

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Plan:
    """Facts about a run before it starts.

    title: of the run. parameters: of encoder and decoder. program: for one device with the full batch. other: the same
    for another batch. steps: total number. dtype: of the networks. exchanges: all-reduces per step on several devices.
    compiled_for: the device's name.
    """

    title: str
    parameters: tuple[int, int]
    program: Program
    other: Program
    steps: int
    dtype: str
    exchanges: int
    compiled_for: str

    def seconds(self, chip: Chip, utilisation: float, chips: int = 1) -> tuple[float, bool]:
        """Seconds per step with the batch split over `chips`, and True if the step is launch-bound."""
        program = self.program
        working = chip.seconds(program.flops, program.moved, self.dtype, utilisation) / chips
        launching = chip.launching(program.operations)
        gradients = 4 * sum(self.parameters)
        exchanging = chip.exchanging(self.exchanges, gradients, chips) if chips > 1 else 0.0
        return max(working, launching) + exchanging, launching > working

    @property
    def an_image(self) -> float:
        """Bytes per additional image; may be 0 or less for tiny networks, where padding and code dominate."""
        difference = self.program.memory.total - self.other.memory.total
        return difference / (self.program.batch - self.other.batch)

    def memory(self, batch: int) -> float:
        """Bytes on a device with `batch` images, by a linear fit through both programs."""
        return self.program.memory.total + (batch - self.program.batch) * self.an_image

    def largest_batch(self, usable: float) -> int:
        """The largest batch whose `memory` fits in `usable` bytes, 0 if none does. Requires `an_image` above 0."""
        return max(0, int((usable - self.memory(0)) // self.an_image))


def text(plan: Plan, utilisation: float, devices: int) -> str:
    """The whole plan; times are for one chip and for `devices`."""
    program = plan.program
    encoder, decoder = plan.parameters
    lines = [
        f"{plan.title}, compiled for {plan.compiled_for}",
        f"parameters     {encoder + decoder:,}: encoder {encoder:,}, decoder {decoder:,}",
        f"a step         {si(program.flops)}FLOP; {si(program.moved)}B read and written",
        f"memory         {gib(program.memory.total)} at batch {program.batch} on one device: {_parts(program.memory)}",
        f"               {gib(plan.an_image)} an image, by batches {plan.other.batch} and {program.batch}; "
        "other batches are extrapolated",
        f"to the end     {plan.steps:,} steps, {si(plan.steps * program.flops)}FLOP",
        "",
        *table(plan, utilisation, devices),
        "",
        textwrap.fill(_assumptions(plan, utilisation, devices), 118),
    ]
    return "\n".join(lines)


def _assumptions(plan: Plan, utilisation: float, devices: int) -> str:
    """The assumptions behind times and memory."""
    launch, latency = ({kind: f"{1e6 * value:g} us" for kind, value in all.items()} for all in (LAUNCH, LATENCY))
    return (
        "All times are ESTIMATES; no accelerator has been measured. Assumed: a chip reaches "
        f"{utilisation:.0%} (--utilisation) of its peak arithmetic or its peak memory traffic, whichever takes longer "
        '("at best": all of it, an upper bound), and starts '
        f"{plan.program.operations:,} operations a step, {launch['gpu']} each on a GPU and {launch['tpu']} on a TPU; "
        f"* marks a time that these starts take (launch-bound). {devices} chips share the batch and exchange "
        f"{plan.exchanges:,} times a step, {latency['gpu']} each on GPUs and {latency['tpu']} on TPUs, beside the "
        f'gradients; "of ideal" is their speed over {devices} times that of one. Usable are 75% of a GPU\'s memory, '
        "what JAX takes by default, and 97% of a TPU's. Memory is what this compiler assigns; values for other "
        "chips are estimates (docs/scaling.md lists their accuracy)."
    )


def table(plan: Plan, utilisation: float, devices: int) -> list[str]:
    """A row for each chip."""
    rows: list[tuple[str, ...]] = [
        ("chip", "usable", "memory", "time", "at best", f"on {devices}", "at best", "of ideal")
    ]
    for chip in CHIPS:
        estimates = [plan.seconds(chip, share, chips) for chips in (1, devices) for share in (utilisation, 1.0)]
        times = [rough_duration(plan.steps * time) + "*" * launched for time, launched in estimates]
        of_ideal = f"{estimates[0][0] / (devices * estimates[2][0]):.0%}"
        rows.append((chip.name, gib(chip.usable), verdict(plan, chip), *times, of_ideal))
    return ["  ".join(cells).rstrip() for cells in aligned(rows)]


def verdict(plan: Plan, chip: Chip) -> str:
    """Whether the run's batch fits one chip, and the largest that does."""
    if plan.an_image <= 0:
        return "fits" if plan.program.memory.total <= chip.usable else "does not fit: remat or a smaller batch"
    largest = plan.largest_batch(chip.usable)
    if plan.program.memory.total <= chip.usable:
        return f"fits; up to batch {largest}"
    if largest > 0:
        return f"fits with batch {largest} a device"
    return "does not fit: remat or a smaller batch"


def _parts(memory: Memory) -> str:
    named = (("state", memory.state), ("batch", memory.batch), ("temporaries", memory.temporaries),
             ("code", memory.code))  # fmt: skip
    return ", ".join(f"{name} {gib(size)}" for name, size in named if size)


def gib(size: float) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.2f} MiB"


def si(value: float) -> str:
    """Three digits and a prefix: "3.21 T"."""
    power = min(int(math.log10(max(value, 1)) // 3), 6)
    return f"{value / 1000**power:.3g} {' kMGTPE'[power].strip()}"
