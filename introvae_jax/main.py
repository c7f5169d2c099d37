"""The main job: trains, or goes on where it was stopped.

    python -m introvae_jax.main --config=configs/digits.py
    python -m introvae_jax.main --config=configs/folder.py --config.data.path=DIR

Any key of the config can be set on the command line: --config.batch_size=64.
"""

import pathlib
import re

from absl import flags
from ml_collections import config_flags

from introvae_jax import errors

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with its argument after a colon if it takes one."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, metrics and pictures go; runs/NAME, after the config, without it."
)


def main(_) -> None:
    """Trains as the flags say."""
    from introvae_jax.training import loop  # here, so that --help and a wrong flag answer at once

    argument = config_flags.get_config_filename(flags.FLAGS["config"])
    path = argument.partition(":")[0]
    if not pathlib.Path(path).is_file():
        raise errors.UserError(f"--config={argument}: there is no file {path}; the experiments are in configs/")
    loop.train(CONFIG.value, WORKDIR.value or default_workdir(argument))


def default_workdir(config_argument: str) -> str:
    """runs/celebahq_1024 for configs/celebahq.py:1024."""
    path, _, argument = config_argument.partition(":")
    return "runs/" + re.sub(r"\W+", "_", "_".join(filter(None, (pathlib.Path(path).stem, argument))))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
