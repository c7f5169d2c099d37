"""Trains a model. Rerun the same command to resume a stopped run. Usage:

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
    "Folder for checkpoints, metrics and pictures; by default runs/NAME, after config and images.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, for several processes that no cluster environment describes."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", lower_bound=0)
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 60, "Seconds without a heartbeat after which another process counts as ended.", lower_bound=5
)
_STEP_TIMEOUT = flags.DEFINE_float(
    "step_timeout", 3600, "Seconds that a step may take before the run is stopped; 0 for no limit.", lower_bound=0
)
_ALLOW_RESTART = flags.DEFINE_bool(
    "allow_restart", False, "Train from step 0 if earlier progress is found but no usable checkpoint."
)
_PROFILE = flags.DEFINE_string(
    "profile", "", "Steps FIRST:LAST to trace, into WORKDIR/profile, for XProf, TensorBoard or Perfetto."
)
GENERIC = ("folder", "default")  # configs for no particular data set


def main(_: Sequence[str]) -> None:
    """Trains. Exit status: 0 training is complete, 75 rerun the same command to resume, 1 a person must act."""
    number = progress.process_number(os.environ) if _PROCESS.value is None else _PROCESS.value
    progress.of_process(number)
    with progress.phase("importing JAX and its libraries"):  # imported here, so that --help and wrong flags are fast
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
    """The default work directory, named after the config and the images.

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
