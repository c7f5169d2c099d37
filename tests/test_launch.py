"""The launcher's plan, with a stand-in for gcloud that fails the test when it is called."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def dry_run(tmp_path):
    """A function that runs launch/tpu_vm.sh with DRY_RUN=1."""
    (tmp_path / "gcloud").write_text("#!/bin/sh\necho called >> $0.log\nexit 1\n")
    (tmp_path / "gcloud").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DRY_RUN": "1"}

    def run(*args):
        result = subprocess.run(
            [ROOT / "launch/tpu_vm.sh", *args], env=env, capture_output=True, text=True, check=False
        )
        assert not (tmp_path / "gcloud.log").exists()
        return result

    return run


def test_create_names_machine_zone_and_type(dry_run):
    out = dry_run("create", "ivae", "us-central1-a", "v5litepod-8").stdout
    assert out.startswith("gcloud compute tpus tpu-vm create ivae --zone=us-central1-a --accelerator-type=v5litepod-8")


def test_train_installs_and_passes_the_flags_on(dry_run):
    out = dry_run("train", "ivae", "z", "--config=configs/celebahq.py:1024", "--config.model.channels=(8, 8)").stdout
    commands = out.splitlines()
    assert "git archive" in commands[0]
    unquoted = commands[-1].replace("\\", "")
    assert "-m introvae_jax.main --config=configs/celebahq.py:1024" in unquoted
    assert "--config.model.channels=(8, 8)" in unquoted
    assert "flock --nonblock" in unquoted


@pytest.mark.parametrize("args", [(), ("create", "ivae", "z"), ("destroy", "ivae", "z")])
def test_anything_else_is_answered_with_the_usage(dry_run, args):
    result = dry_run(*args)
    assert result.returncode == 1
    assert "launch/tpu_vm.sh create NAME ZONE TYPE" in result.stderr
