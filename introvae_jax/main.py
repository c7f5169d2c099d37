"""The main job: trains, or goes on where it was stopped.

    python -m introvae_jax.main --config=configs/digits.py
    python -m introvae_jax.main --config=configs/folder.py --config.data.path=DIR

Any key of the config can be set on the command line: --config.batch_size=64.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import re
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from introvae_jax import errors, progress

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file of configs/, with its argument after a colon if it takes one."
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Where checkpoints, metrics and pictures go; without it runs/NAME, after config and images.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where several processes train one model and no cluster says."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.", lower_bound=0)
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 60, "Seconds without a sign of life after which another process counts as gone.", lower_bound=5
)
_STEP_TIMEOUT = flags.DEFINE_float(
    "step_timeout", 3600, "Seconds after which a step that does not end is given up; 0 for never.", lower_bound=0
)
_ALLOW_RESTART = flags.DEFINE_bool(
    "allow_restart", False, "Train from step 0 where earlier progress is found but no usable checkpoint."
)
_PROFILE = flags.DEFINE_string(
    "profile", "", "Steps FIRST:LAST to trace, into WORKDIR/profile, for XProf, TensorBoard or Perfetto."
)
GENERIC = ("folder", "default")  # configs of no data set in particular


def main(_: Sequence[str]) -> None:
    """Trains as the flags say. Exit status: 0 trained to the end, 75 the same command goes on, 1 a person must act."""
    number = progress.process_number(os.environ) if _PROCESS.value is None else _PROCESS.value
    progress.of_process(number)
    with progress.phase("importing JAX and its libraries"):  # here, so that --help and a wrong flag answer at once
        import jax

        from introvae_jax import compilation_cache, processes
        from introvae_jax.training import train_loop

    argument = config_flags.get_config_filename(flags.FLAGS["config"])
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    processes.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, peer_timeout=_PEER_TIMEOUT.value)
    progress.of_process(jax.process_index() if processes.several() else None)
    with progress.phase("starting the devices"):
        compilation_cache.enable()
    trained = train_loop.train(
        CONFIG.value, WORKDIR.value or default_workdir(argument, overrides, CONFIG.value.data.source),
        step_timeout=_STEP_TIMEOUT.value, peer_timeout=_PEER_TIMEOUT.value, profile=_PROFILE.value,
        allow_restart=_ALLOW_RESTART.value,
    )  # fmt: skip
    if not trained:
        sys.exit(errors.EXIT_RETRY)


def default_workdir(config_argument: str, overrides: Mapping[str, Any], source: str) -> str:
    """The work directory of a config and of the images that `overrides` of the command line put into its place.

    runs/celebahq_1024 for configs/celebahq.py:1024; runs/folder_faces for configs/folder.py with data.path=DIR/faces;
    runs/faces_64 for the prepared set faces/64, where the config is folder.py or default.py.
    overrides: {"data.path": ...} of the command line. source: the config's `data.source` after them.
    """
    path, _, argument = config_argument.partition(":")
    stem = pathlib.Path(path).stem
    if source in ("tfds", "density"):
        images = overrides.get("data.name", "")
        stem = "" if images and stem in GENERIC else stem
    elif source == "folder" and overrides.get("data.path"):
        images = pathlib.Path(overrides["data.path"]).absolute().name
    else:
        images = overrides.get("data.source", "")
    return "runs/" + re.sub(r"[^\w.-]+", "_", "_".join(filter(None, (stem, argument, images))))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
