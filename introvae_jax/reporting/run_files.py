"""What a work directory tells a reader about its run: config.json and log.txt."""

import json
import pathlib
from typing import Any

import ml_collections

from introvae_jax import bucket, disk, progress
from introvae_jax import config as config_lib


def begin(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes config.json, prints what has changed in it, and opens log.txt.

    A bucket gets no log.txt: nothing can be appended there, and its jobs keep what they print. Raises OSError if the
    directory cannot be written, UserError if there is no space.
    """
    disk.require_space(workdir, 0, "the log")
    if not bucket.is_bucket(workdir):
        progress.log_to(workdir / "log.txt")
    path = workdir / "config.json"
    now = config_lib.to_dict(config)
    if changes := _changes(_read(path), now):
        progress.say(f"{path}: changed since the last start: {'; '.join(changes)}")
    with disk.whole_file(path) as temporary:
        temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


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
