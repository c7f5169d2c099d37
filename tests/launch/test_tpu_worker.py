"""launch/tpu_worker.sh, run for real beside a stand-in training."""

import shutil
import subprocess
import sys
import time

import pytest


@pytest.fixture
def worker(training, environment):
    """A function that runs launch/tpu_worker.sh of a directory as tpu_vm.sh installs it."""
    folder = training.folder
    source = (folder / "launch").resolve()
    (folder / "launch").unlink()
    shutil.copytree(source, folder / "launch")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    command = [folder / "launch/tpu_worker.sh"]

    def run(*args, wait=True):
        if not wait:
            return subprocess.Popen([*command, *args], cwd="/", env=environment)
        return subprocess.run(
            [*command, *args], cwd="/", env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    return run


@pytest.fixture
def one_host(commands):
    commands.answer("worker-network-endpoints", "10.0.0.2")


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("status", [0, 1, 75])
def test_the_exit_status_stays_on_the_worker(worker, training, one_host, status):
    training.plan([status])
    worker("train", "--config=c.py", "--x=(1, 2)")
    assert worker("status").stdout == f"training: {status}\n"
    assert training.record(0)["argv"] == ["--config=c.py", "--x=(1, 2)"]
    assert training.record(0)["environment"] == {}
    assert (training.folder / "train.log").read_text() == "out of 0\nerr of 0\n"


@pytest.mark.parametrize(
    "endpoints", ["10.0.0.2,10.0.0.3,10.0.0.4", "t-0:7:10.0.0.2,t-1:8:10.0.0.3,t-2:9:10.0.0.4"], ids=["new", "old"]
)
def test_a_worker_of_many_finds_its_place(worker, training, commands, endpoints):
    commands.answer("worker-network-endpoints", endpoints)
    commands.answer("agent-worker-number", "2")
    training.plan([0], [0], [0])
    worker("train", "--config=c.py")
    assert training.record(2)["environment"] == {
        "JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476",
        "JAX_NUM_PROCESSES": "3",
        "JAX_PROCESS_ID": "2",
    }


def test_a_second_start_leaves_the_first_alone_and_kill_reaches_the_training(worker, training, one_host):
    training.plan(["told", 0])
    first = worker("train", "--config=c.py", wait=False)
    until(lambda: training.attempts(0))
    assert worker("status").stdout == "training: running\n"
    assert worker("train", "--config=c.py").returncode == 0
    assert training.attempts(0) == 1
    worker("kill", "TERM")
    first.wait(timeout=20)
    assert worker("status").stdout == "training: 75\n"
    assert training.record(0)["signals"] == ["SIGTERM"]
    worker("train", "--config=c.py")
    assert worker("status").stdout == "training: 0\n"


def test_a_worker_that_was_killed_is_gone(worker, training, one_host):
    training.plan(["hang"])
    first = worker("train", "--config=c.py", wait=False)
    until(lambda: training.attempts(0))
    first.kill()  # as a machine that starts anew: neither process lives, and no status was written
    worker("kill", "KILL")
    first.wait(timeout=20)
    until(lambda: worker("status").stdout == "training: gone\n")


def test_following_ends_with_the_training(worker, training, one_host):
    training.plan(["told"])
    first = worker("train", "--config=c.py", wait=False)
    until(lambda: (training.folder / "train.pid").exists() and training.attempts(0))
    follower = worker("follow", wait=False)
    time.sleep(0.3)
    assert follower.poll() is None
    worker("kill", "TERM")
    assert follower.wait(timeout=20) == 0
    first.wait(timeout=20)
