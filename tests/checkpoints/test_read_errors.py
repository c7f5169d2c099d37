"""Reads of a checkpoint that fail although its bytes are right: the run stops and nothing is moved."""

import errno
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import jax
import pytest
from tiny_run import config, contents, resume

from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import EXIT_RETRY, UserError
from introvae_jax.training import train_loop

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
READ = ("run/metadata", "state/_METADATA", "state/manifest.ocdbt", "statistics/_METADATA", "statistics/manifest.ocdbt")


def check_nothing_moved(workdir, before, status, *parts):
    """A start is refused with one line, leaves all files and succeeds when the fault is gone (the caller's part)."""
    with pytest.raises(UserError) as caught:
        resume(workdir)
    assert caught.value.status == status, caught.value
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (workdir / "damaged").exists()


def failing_read(folder):
    """The library that makes reads fail or stall, compiled."""
    library = folder / "failing_read.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, HERE / "failing_read.c", "-ldl"], check=True, timeout=60)
    return str(library)


def test_an_input_output_error_of_any_file_moves_nothing(workdir, tmp_path, one_device):
    path = os.pathsep.join(map(str, (ROOT, HERE)))
    environment = one_device | {"LD_PRELOAD": failing_read(tmp_path), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, HERE / "failing_reads.py", workdir], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (step, status, said) in found.items():
        assert step == 4 or (status == EXIT_RETRY and "Input/output error" in said), (name, step, said)
    for name in READ:
        assert found[f"checkpoints/4/{name}"][1] == EXIT_RETRY, name
        assert f"checkpoints/4/{name}: cannot be read" in found[f"checkpoints/4/{name}"][2]
    assert any(status == EXIT_RETRY for name, (_, status, _) in found.items() if "/state/d/" in name)
    assert any(
        status == EXIT_RETRY for name, (_, status, _) in found.items() if "/statistics/ocdbt.process_0/d/" in name
    )


@pytest.fixture
def anybody():
    """A function that calls another one as a user without any right; its folder, which that user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        root = os.geteuid() == 0

        def call(function, *args):
            if root:
                os.seteuid(65534)
            try:
                return function(*args)
            finally:
                if root:
                    os.seteuid(0)

        yield call, pathlib.Path(folder)


@pytest.mark.parametrize("name", [*READ, "state", "statistics", ""])
def test_files_of_another_user_are_not_damaged(trained, anybody, name):
    call, folder = anybody
    subprocess.run(["cp", "-r", trained, folder / "run"], check=True)
    workdir, path = folder / "run", folder / "run/checkpoints/4" / name
    before, mode = contents(workdir), path.stat().st_mode
    path.chmod(0)
    call(check_nothing_moved, workdir, before, 1, "Permission denied", "stays where it is", "readable for this user")
    path.chmod(mode)
    assert contents(workdir) == before
    assert int(resume(workdir).step) == 4


def test_too_many_open_files_are_no_damage(workdir):
    assert int(resume(workdir).step) == 4  # all modules are imported
    before, limits = contents(workdir), resource.getrlimit(resource.RLIMIT_NOFILE)
    stopped = 0
    for spare in range(12):
        free = [os.dup(0) for _ in range(spare + 1)]
        for number in free:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), limits[1]))
        try:
            assert int(resume(workdir).step) == 4
        except UserError as error:
            stopped += 1
            assert error.status == EXIT_RETRY, error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert contents(workdir) == before
    assert stopped > 1
    assert int(resume(workdir).step) == 4


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "says"),
    [(MemoryError(), 1, "too little memory"),
     (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes"), 1, "too little memory"),
     (ValueError("UNKNOWN: no [os_error_code='116'] here"), EXIT_RETRY, "Stale file handle"),
     (ValueError("RESOURCE_EXHAUSTED: Failed to open [os_error_code='24']"), EXIT_RETRY, "Too many open files"),
     (TimeoutError(errno.ETIMEDOUT, "slow"), EXIT_RETRY, "Connection timed out"),
     (RuntimeError("can't start new thread"), 1, "nothing proves that its files are damaged")],
)  # fmt: skip
def test_an_error_that_passes_is_no_damage(workdir, monkeypatch, error, status, says, manifest):
    def fail(self, *_, **__):
        raise error

    if not manifest:
        (workdir / "checkpoints/4/manifest.json").unlink()
    before = contents(workdir)
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
        check_nothing_moved(workdir, before, status, says)
    assert contents(workdir) == before


def test_a_bucket_that_does_not_answer_is_no_damage(workdir, monkeypatch):
    checkpoints = Checkpoints(workdir)
    monkeypatch.setattr("introvae_jax.checkpoints.checkpoint.bucket.is_bucket", lambda path: True)

    def fail(*_, **__):
        raise RuntimeError("503 Service Unavailable")

    for place in ("orbax.checkpoint.CheckpointManager.restore", "introvae_jax.checkpoints.files.find_damage"):
        monkeypatch.setattr(place, fail)
        with pytest.raises(UserError, match="503 Service Unavailable") as caught:
            checkpoints.restore_run(4)
        assert caught.value.status == EXIT_RETRY
        assert type(caught.value) is UserError


def test_a_file_that_stalls_ends_the_start_with_one_line(workdir, tmp_path, run_command):
    flags = [f"--config.{key}={value}" for key, value in {
        "steps": 4, "batch_size": 8, "optim.schedule": "constant", "model.width": 64, "model.depth": 1,
    }.items()]  # fmt: skip
    done = run_command(
        "introvae_jax.main", "--config=configs/toy2d.py:8gaussians,vae", *flags, f"--workdir={workdir}",
        "--step_timeout=4", timeout=120, LD_PRELOAD=failing_read(tmp_path),
        STALLED_FILE=str(workdir / "checkpoints/4/run/metadata"),
    )  # fmt: skip
    assert done.returncode == EXIT_RETRY, done.stderr
    (line,) = done.stderr.splitlines()
    assert "reading the checkpoints has taken more than 4 s (--step_timeout)" in line
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]


@pytest.mark.parametrize("name", ["a[abc]", "a\\b", "a*", "a?b", "a\udcffb"])
def test_a_path_that_orbax_cannot_read_is_refused_before_training(tmp_path, name):
    with pytest.raises(UserError, match=r"--workdir=.*rename the directory"):
        train_loop.train(config(), tmp_path / name)
    assert not (tmp_path / name / "checkpoints").exists()


@pytest.mark.parametrize("name", ["a]b", "a b", "a{b,c}", "é", "a%20b#c:d"])
def test_other_paths_hold_checkpoints(trained, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", trained, tmp_path / name], check=True)
    assert int(resume(tmp_path / name).step) == 4
