"""Files and output at the start of a run: config.json, log.txt and the first log line."""

import json
import pathlib
from typing import Any

from clu import parameter_overview
import ml_collections

from introvae_jax import bucket, disk, progress
from introvae_jax import config as config_lib
from introvae_jax.data.source import Splits
from introvae_jax.experiment import Experiment, example_shape


def begin(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes config.json, prints its changes, and opens log.txt.

    There is no log.txt in a bucket, where nothing can be appended. Raises OSError if the directory cannot be written,
    UserError if there is no space.
    """
    disk.require_space(workdir, 0, "the log")
    if not bucket.is_bucket(workdir):
        progress.log_to(workdir / "log.txt")
    path = workdir / "config.json"
    now = config_lib.to_dict(config)
    if changes := _changes(_read(path), now):
        progress.say(f"{path}: changed since the last start: {'; '.join(changes)}")
    with disk.atomic_write(path) as temporary:
        temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def introduction(experiment: Experiment, splits: Splits, state: Any, workdir: pathlib.Path) -> str:
    """The first log line: data, networks, devices, objective and steps."""
    config, replicas = experiment.config, experiment.replicas
    count: Any = parameter_overview.count_parameters
    shape = example_shape(config)
    kind = f"images of {'x'.join(map(str, shape))}" if len(shape) == 3 else "points"
    return (
        f"{workdir}: {len(splits.train)} training and {len(splits.test)} held-out {kind}; "
        f"encoder {count(state.encoder.params):,} and decoder {count(state.decoder.params):,} parameters; "
        f"{replicas.count} x {replicas.local[0].device_kind}; "
        f"{config.objective.name} from step {int(state.step)} to {config.steps}"
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    """The config of the last start, {} if there is none or it is not a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = config_lib.flatten(before), config_lib.flatten(now)
    return [f"config.{key} = {old[key]!r}, now {new[key]!r}" for key in new if key in old and old[key] != new[key]]
