"""What a run will take, before anything is bought: memory, FLOPs, days on each chip. Usage:

    python -m introvae_jax.plan --config=configs/celebahq.py
    python -m introvae_jax.plan --config=configs/celebahq.py:1024 --config.batch_size=4
    python -m introvae_jax.plan --config=configs/celebahq.py --target=tpu_v5e     pip install libtpu; no TPU needed

Compiles the step that training would run and prints what the compiler says of it. Needs no images, writes nothing and
runs nothing. docs/scaling.md says how far the figures can be trusted.
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
    "Whose compiler: that of this machine's device, or a TPU's (needs the package libtpu).",
)
_UTILISATION = flags.DEFINE_float(
    "utilisation", 0.35, "Share of a chip's peak that training is assumed to reach.", lower_bound=0.001, upper_bound=1.0
)
_DEVICES = flags.DEFINE_integer("devices", 8, "Chips of the second estimate.", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """Plans what the flags name."""
    with progress.phase("importing JAX and its libraries"):  # here, so that --help and a wrong flag answer at once
        from introvae_jax.planning import planner, report

    argument = config_flags.get_config_filename(flags.FLAGS["config"])
    plan = planner.plan(_CONFIG.value, argument, _TARGET.value)
    print(report.text(plan, _UTILISATION.value, _DEVICES.value))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
