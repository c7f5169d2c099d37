"""A checkpoint from a stranger imports nothing, reads nothing but its own files, and is not waited for."""

import json
import os
import shutil
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest

from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError

STATE = {"players": {"a": np.arange(4.0), "b": np.ones((2, 3))}}
STATISTICS = {"ema": {"mean": np.zeros(3)}}


@pytest.fixture
def run(tmp_path):
    """A work directory with one checkpoint, at step 1."""
    checkpoints = Checkpoints(tmp_path / "run", keep=1)
    checkpoints.save(1, STATE, STATISTICS, {"config": {"seed": 0}, "data_identity": ""})
    checkpoints.wait()
    checkpoints.close()
    return tmp_path / "run"


def read(run):
    """All that sampling reads."""
    checkpoints = Checkpoints(run)
    try:
        checkpoints.restore_run(1)
        return checkpoints.restore_model(1, STATE, STATISTICS)
    finally:
        checkpoints.close()


def test_a_checkpoint_is_read(run):
    state, statistics = read(run)
    np.testing.assert_array_equal(state["players"]["a"], STATE["players"]["a"])
    np.testing.assert_array_equal(statistics["ema"]["mean"], STATISTICS["ema"]["mean"])


def test_a_checkpoint_imports_nothing(run, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in [file for file in run.rglob("*") if file.name in ("_CHECKPOINT_METADATA", "_METADATA", "_sharding")]:
        text = path.read_text()
        for word in ("orbax.checkpoint", "jax.Array", "np.ndarray", "numpy.ndarray", "NamedSharding", "SingleDevice"):
            text = text.replace(word, "stranger.Handler")
        path.write_text(text)
    try:
        read(run)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    assert not (tmp_path / "imported").exists()
    assert "stranger" not in sys.modules


def fifos(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def test_a_checkpoint_waits_for_no_fifo_and_reads_no_device(run, tmp_path):
    for name in fifos(run):
        other = shutil.copytree(run, tmp_path / "other")
        (other / name).unlink()
        os.mkfifo(other / name)
        with pytest.raises(UserError, match="neither a file nor a folder"):
            read(other)
        (other / name).unlink()
        (other / name).symlink_to("/dev/zero")
        with pytest.raises(UserError, match="neither a file nor a folder"):
            read(other)
        shutil.rmtree(other)


def test_a_checkpoint_reads_no_array_of_another_place(run, tmp_path):
    """The names of arrays are keys in the checkpoint's own database, and paths nowhere."""
    secret = {"ema": {"mean": np.full(3, 7.0)}}
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "secret", secret)
    path = run / "checkpoints" / "1" / "statistics" / "_METADATA"
    metadata = json.loads(path.read_text())
    (name,) = metadata["tree_metadata"]
    for away in ("../../../../secret", str(tmp_path / "secret")):
        entry = json.loads(json.dumps(metadata["tree_metadata"][name]))
        entry["key_metadata"][0]["key"] = f"{away}/ema"
        changed = metadata | {"tree_metadata": {str((f"{away}/ema", "mean")): entry}}
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match="damaged"):
            read(run)
