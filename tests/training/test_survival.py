"""What a run survives: closed terminals, two starts at once, damaged logs, pictures that cannot be written."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from runs import records, state, terms, wait_for
from test_rollbacks import config
from tiny import DIGITS

from introvae_jax import startup
from introvae_jax.training import train_loop
from introvae_jax.training.stop import StopRequest

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = (
    *DIGITS, "--config.objective.warmup_steps=40", "--config.log.every=5", "--config.checkpoint.every=15",
    "--config.log.pictures_every=1000",
)  # fmt: skip


@pytest.fixture
def start(one_device):
    """A function that starts the main job; it ends with the test at the latest."""
    started = []

    def start(workdir, steps, prefix=(), **options):
        command = [*prefix, sys.executable, "-m", "introvae_jax.main", *TINY,
                   f"--config.steps={steps}", f"--workdir={workdir}"]  # fmt: skip
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options
        started.append(subprocess.Popen(command, cwd=ROOT, env=one_device, text=True, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def shell(redirection):
    return ("sh", "-c", f'exec "$@" {redirection}', "sh")


def test_a_run_whose_output_cannot_be_written_trains_to_the_end(tmp_path, start):
    full = start(tmp_path / "full", 20, shell(">/dev/full 2>/dev/full"))
    closed = start(tmp_path / "closed", 20, shell(">&- 2>&-"))
    unread = start(tmp_path / "unread", 20)
    unread.stderr.close()
    assert [process.wait(timeout=200) for process in (full, closed, unread)] == [0, 0, 0]
    for name in ("full", "closed", "unread"):
        assert [record["step"] for record in records(tmp_path / name)] == [5, 10, 15, 20]
        assert (tmp_path / name / "checkpoints/20").is_dir()


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path, start):
    process = start(tmp_path, 60, ("sh", "-c", 'trap "" HUP; exec "$@"', "sh"))
    wait_for(lambda: len(records(tmp_path)) > 2, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=200) == 0


@pytest.fixture
def ended(monkeypatch):
    """The signals that would have ended the process."""
    numbers = []
    monkeypatch.setattr(startup, "end", numbers.append)
    return numbers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_to_stop_and_the_second_ends_at_once(number, ended, capfd):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.agreed()
        os.kill(os.getpid(), number)
        assert stop.agreed() and stop.requested == number.name
        assert not ended
        os.kill(os.getpid(), number)
    assert ended == [number]
    said = capfd.readouterr().err
    assert "saving" in said and "at once without saving" in said
    assert signal.getsignal(number) == before


def test_pictures_that_cannot_be_written_are_one_warning(tmp_path, capfd):
    """A file stands where the folder should be: root, who may write anywhere, fails too."""
    (tmp_path / "pictures").touch()
    (tmp_path / "curves.png").mkdir()
    short = config(rollbacks=0, steps=20)
    short.log.pictures_every = 10
    assert train_loop.train(short, tmp_path)
    said = capfd.readouterr().err
    assert said.count("warning") == 1
    assert f"{tmp_path}/pictures: " in said and "continuing without this picture" in said


def test_a_run_in_another_thread_than_the_main_one_trains(tmp_path):
    trained = []
    thread = threading.Thread(target=lambda: trained.append(train_loop.train(config(rollbacks=0, steps=10), tmp_path)))
    thread.start()
    thread.join(timeout=200)
    assert trained == [True]


def test_a_second_start_is_refused_and_the_first_one_loses_nothing(tmp_path, start):
    """Starts at four delays beside a run, one more once it was killed, and all that the run should have is there."""
    workdir = tmp_path / "run"
    first = start(workdir, 60)
    wait_for(lambda: (workdir / ".lock").exists(), first)
    others = []
    for delay in (0, 0.5, 2, 4):
        time.sleep(delay)
        others.append(start(workdir, 60))
    first.send_signal(signal.SIGSTOP)  # or it may be done before the last one asks
    for other in others:
        said = other.communicate(timeout=200)[1]
        assert other.returncode == 1
        assert said.count("\n") == 1
        assert (
            f"{workdir}: another process is training there now (process {first.pid} on {socket.gethostname()}" in said
        )
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: len(records(workdir)) > 4, first)
    first.kill()
    last = start(workdir, 60)
    said = last.communicate(timeout=200)[1]
    assert last.returncode == 0, said
    assert [record["step"] for record in records(workdir)] == list(range(5, 61, 5))
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [45, 60]
    assert not (workdir / ".lock").exists()
    start(tmp_path / "undisturbed", 60).communicate(timeout=200)
    assert terms(workdir) == terms(tmp_path / "undisturbed")
    jax.tree.map(np.testing.assert_array_equal, state(workdir, 60), state(tmp_path / "undisturbed", 60))
