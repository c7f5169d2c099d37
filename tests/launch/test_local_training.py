"""The whole way: launch/local.sh, two processes that train, one of them killed, all started again, the end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from tiny import DIGITS

ROOT = pathlib.Path(__file__).parent.parent.parent


def processes_of(workdir):
    """Process ids of the training commands of this work directory, in the order of their starts."""
    found = subprocess.run(
        ["pgrep", "-f", f"introvae_jax.main .*--workdir={workdir}"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def test_a_killed_process_costs_a_restart_and_the_run_ends(tmp_path, one_device):
    workdir = tmp_path / "run"
    command = [
        ROOT / "launch/local.sh", "2", *DIGITS, f"--workdir={workdir}", "--peer_timeout=8", "--config.steps=60",
        "--config.objective.warmup_steps=0", "--config.log.every=5", "--config.checkpoint.every=10",
    ]  # fmt: skip
    launcher = subprocess.Popen(
        command, cwd=ROOT, env=one_device | {"PYTHON": sys.executable, "INTROVAE_JAX_ANNOUNCE_AFTER": "0"},
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.time() + 200
        while not list(workdir.glob("checkpoints/[0-9]*")) and time.time() < deadline:
            time.sleep(0.1)
        os.kill(processes_of(workdir)[-1], signal.SIGKILL)
        printed, said = launcher.communicate(timeout=300)
    finally:
        launcher.terminate()
    assert launcher.returncode == 0, said
    assert "launch/local.sh: " in said
    assert said.count(": 4500 training and 500 held-out images") == 2
    assert f": {workdir} holds the checkpoint of step 60" in said
    assert "Traceback" not in said
    announced = [line for line in said.splitlines() if " ..." in line]
    assert "compiling the step (introvae) ..." in announced
    assert any(line.startswith("waiting for the other processes") for line in announced)
    assert not any(line.startswith("[1] ") for line in announced)
    assert not printed  # Gloo has lines of its own
