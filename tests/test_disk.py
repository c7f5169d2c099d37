"""One process at a time: a lock that ends with its owner, however that ends."""

import errno
import fcntl
import itertools
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from introvae_jax import disk
from introvae_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
WORKER = """
import os, pathlib, sys, time
from introvae_jax import disk, errors
disk.UNLOCKING = 0.2
folder = pathlib.Path(sys.argv[1])
try:
    with disk.file_lock(folder / ".lock", "working"), (folder / "log").open("a") as log:
        for _ in range(40):
            print(os.getpid(), file=log, flush=True)
            time.sleep(0.02)
except errors.UserError as error:
    sys.exit(str(error))
"""


def worker(folder):
    command = [sys.executable, "-c", WORKER, folder]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("delay", np.linspace(0, 0.9, 10))
@pytest.mark.parametrize("killed", [False, True])
def test_of_two_at_once_one_works_and_a_dead_one_holds_no_lock(tmp_path, delay, killed):
    first = worker(tmp_path)
    time.sleep(delay)
    second = worker(tmp_path)
    if killed:
        time.sleep(0.3)
        first.kill()
    said = {process: process.communicate(timeout=60)[1] for process in (first, second)}
    lines = (tmp_path / "log").read_text().splitlines()
    turns = [pid for pid, _ in itertools.groupby(lines)]
    assert len(turns) == len(set(turns))  # nobody writes while another one does
    for process, other in ((first, second), (second, first)):
        if process.returncode == 1:
            assert f"{tmp_path}: another process is working there now (process {other.pid} on " in said[process]
            assert str(process.pid) not in turns
        elif process.returncode == 0:
            assert lines.count(str(process.pid)) == 40
    assert killed or 0 in (first.returncode, second.returncode)
    with disk.file_lock(tmp_path / ".lock", "looking"):
        pass
    assert not (tmp_path / ".lock").exists()


def test_the_owner_is_named_even_in_its_own_process(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "UNLOCKING", 0)
    with (
        disk.file_lock(tmp_path / ".lock", "training"),
        pytest.raises(UserError, match=rf"training there now \(process {os.getpid()} on .* since \d+-"),
        disk.file_lock(tmp_path / ".lock", "training"),
    ):
        pass


def test_a_lock_file_that_a_dead_owner_left_locks_nothing(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".lock.owner").write_text("training there now (process 1 on nowhere)")
    with disk.file_lock(tmp_path / ".lock", "training"):
        assert f"process {os.getpid()} on " in (tmp_path / ".lock.owner").read_text()
    assert list(tmp_path.iterdir()) == []


def test_no_module_needs_what_only_unix_has():
    """On Windows there is no fcntl. Whether locks work there is filelock's to test."""
    check = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import introvae_jax.disk, introvae_jax.data.readers, introvae_jax.torch_weights.torch_file\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", check], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capfd, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with disk.file_lock(tmp_path / ".lock", "training"):
        pass
    assert f"{tmp_path}: no file locks there" in capfd.readouterr().err
