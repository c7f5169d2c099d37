"""launch/local.sh with real processes of a stand-in training."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def started(training, environment):
    """A function that starts launch/local.sh and gives the running launcher once `count` processes run."""
    launchers = []

    def start(count, *args):
        launcher = subprocess.Popen(
            [ROOT / "launch/local.sh", *args, str(count), "--config=c.py"],
            cwd=training.folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        launchers.append(launcher)
        deadline = time.monotonic() + 20
        while not all(training.attempts(i) for i in range(count)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return launcher

    yield start
    for launcher in launchers:
        launcher.kill()
        # What it started would go on, and hold the pipe.
        subprocess.run(["pkill", "-KILL", "--session", str(launcher.pid)], check=False)
        launcher.wait(timeout=20)
        launcher.stderr.close()


def test_processes_know_their_place_and_get_the_flags(launch, training):
    training.plan([0], [0], [0])
    result = launch("local.sh", "3", "--config=c.py", "--config.model.channels=(8, 8)")
    assert result.returncode == 0
    records = [training.record(i) for i in range(3)]
    addresses = {r["environment"]["JAX_COORDINATOR_ADDRESS"] for r in records}
    assert len(addresses) == 1
    assert addresses.pop().startswith("127.0.0.1:")
    assert [r["environment"]["JAX_PROCESS_ID"] for r in records] == ["0", "1", "2"]
    assert {r["environment"]["JAX_NUM_PROCESSES"] for r in records} == {"3"}
    assert all(r["argv"] == ["--config=c.py", "--config.model.channels=(8, 8)"] for r in records)


def test_one_process_is_not_joined_to_anything(launch, training):
    training.plan([0])
    assert launch("local.sh", "1", "--config=c.py").returncode == 0
    assert training.record(0)["environment"] == {}


def test_each_process_gets_its_gpu(launch, training):
    training.plan([0], [0])
    assert launch("local.sh", "--gpus", "2", "--config=c.py").returncode == 0
    assert [training.record(i)["environment"]["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["0", "1"]


def test_only_process_0_speaks_without_a_prefix(launch, training):
    training.plan([0], [0])
    result = launch("local.sh", "2", "--config=c.py")
    assert sorted(result.stdout.splitlines()) == ["[1] out of 1", "out of 0"]
    assert sorted(result.stderr.splitlines()) == ["[1] err of 1", "err of 0"]


@pytest.mark.parametrize("end", [75, -signal.SIGKILL, -signal.SIGSEGV])
def test_all_are_started_again_when_a_rerun_goes_on(launch, training, end):
    training.plan([75, 0], [end, 0])
    result = launch("local.sh", "2", "--config=c.py")
    assert result.returncode == 0
    assert [training.attempts(i) for i in range(2)] == [2, 2]
    assert result.stderr.count("started again") == 1


def test_it_gives_up_after_so_many_restarts_and_says_that_a_rerun_goes_on(launch, training):
    training.plan([75])
    result = launch("local.sh", "--restarts=2", "1", "--config=c.py")
    assert result.returncode == 75
    assert training.attempts(0) == 3
    assert "all are started again, 2 of at most 2 times" in result.stderr


@pytest.mark.parametrize("ends", [([1], [75]), ([75], [1]), ([-signal.SIGKILL], [2]), ([0], [1])])
def test_a_person_must_act_whatever_the_others_say(launch, training, ends):
    training.plan(*ends)
    assert launch("local.sh", "2", "--config=c.py").returncode == 1
    assert training.attempts(0) == training.attempts(1) == 1


def test_a_process_that_hangs_after_another_died_is_killed_and_all_start_again(launch, training):
    training.plan([-signal.SIGKILL, 0], ["hang", 0])
    began = time.monotonic()
    result = launch("local.sh", "--grace=2", "2", "--config=c.py")
    assert result.returncode == 0
    assert 1 <= time.monotonic() - began < 30  # bash counts whole seconds
    assert "still running after 2 seconds, killed: process 1" in result.stderr
    assert training.attempts(1) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once_and_nothing_is_started_again(started, training, number):
    training.plan(["told"], ["told"])
    launcher = started(2)
    launcher.send_signal(number)
    launcher.communicate(timeout=20)
    assert launcher.returncode == 75
    assert training.saved() == ["0", "1"]
    assert [training.record(i)["signals"] for i in range(2)] == [[number.name]] * 2
    assert training.attempts(0) == 1


def test_ctrl_c_in_a_terminal_reaches_each_process_once(started, training):
    training.plan(["told"], ["told"])
    launcher = started(2)
    os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does: to all that share the launcher's group
    launcher.communicate(timeout=20)
    assert launcher.returncode == 75
    assert training.saved() == ["0", "1"]
    assert [training.record(i)["signals"] for i in range(2)] == [["SIGINT"]] * 2


def test_a_launcher_whose_terminal_is_gone_passes_the_signal_on_and_waits(started, training):
    """Nobody reads its output any more, as after a terminal has closed."""
    training.plan(["told"], ["told"])
    launcher = started(2)
    launcher.stderr.close()
    launcher.send_signal(signal.SIGHUP)
    assert launcher.wait(timeout=20) == 75
    assert training.saved() == ["0", "1"]
