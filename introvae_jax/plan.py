"""Estimates the cost of a run: memory, FLOPs and days on each chip. Usage:

    python -m introvae_jax.plan --config=configs/celebahq.py
    python -m introvae_jax.plan --config=configs/celebahq.py:1024 --config.batch_size=4
    python -m introvae_jax.plan --config=configs/celebahq.py --target=tpu_v5e     pip install libtpu; no TPU needed

Compiles the training step and prints the compiler's analysis. It needs no images, writes no files and runs no step.
docs/scaling.md lists the accuracy of each estimate.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from introvae_jax import errors, progress

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with its argument after a colon if it takes one."
)
_TARGET = flags.DEFINE_enum(
    "target",
    "here",
    ["here", "tpu_v4", "tpu_v5e", "tpu_v5p", "tpu_v6e"],
    "The compiler: that of this machine's device, or a TPU's (needs the package libtpu).",
)
_UTILISATION = flags.DEFINE_float(
    "utilisation", 0.35, "Share of a chip's peak that training is assumed to reach.", lower_bound=0.001, upper_bound=1.0
)
_DEVICES = flags.DEFINE_integer("devices", 8, "Number of chips of the second estimate.", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """Prints the plan of a run."""
    with progress.phase("importing JAX and its libraries"):  # imported here, so that --help and wrong flags are fast
        from introvae_jax.planning import planner, report

    argument = config_flags.get_config_filename(flags.FLAGS["config"])
    plan = planner.plan(_CONFIG.value, argument, _TARGET.value)
    print(report.text(plan, _UTILISATION.value, _DEVICES.value))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
