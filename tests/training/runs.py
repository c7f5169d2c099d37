"""What a run leaves behind, read back, for the tests that start whole ones."""

import json
import pathlib
import time

import jax
import numpy as np
import orbax.checkpoint as ocp


def records(workdir):
    """The whole lines of metrics.jsonl."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


TIMES = ("images_per_second", "seconds", "wall_time")  # what no two runs share


def terms(workdir):
    """The same without what no two runs share."""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records(workdir)]


def state(workdir, step):
    """As numpy arrays, whatever the devices that wrote it."""
    path = pathlib.Path(workdir).absolute() / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(path).item_metadata.tree
        return reader.restore(path, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree))


def wait_for(condition, process, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.time() < deadline
        time.sleep(0.01)
