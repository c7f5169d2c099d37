"""Whole runs as a user starts them: killed, stopped, resumed, refused."""

import datetime
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from runs import records, state, terms, wait_for
from tiny import DIGITS

ROOT = pathlib.Path(__file__).parent.parent.parent

# The digits with the smallest networks, checkpoints and lines so frequent that a kill hits them all.
TINY = (
    *DIGITS, "--config.objective.warmup_steps=40", "--config.log.every=5", "--config.checkpoint.every=15",
    "--config.log.pictures_every=60",
)  # fmt: skip


@pytest.fixture
def start(one_device):
    """A function that starts the main job; it ends with the test at the latest."""
    started = []

    def start(workdir, steps, *more, prefix=(), base=TINY):
        command = [*prefix, sys.executable, "-m", "introvae_jax.main", *base,
                   f"--config.steps={steps}", f"--workdir={workdir}", *more]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=ROOT, env=one_device, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def finish(process):
    """Exit status and what was said."""
    return process.wait(timeout=300), process.stderr.read()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, one_device):
    """A run of 150 steps that nobody disturbed; read only."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    command = [sys.executable, "-m", "introvae_jax.main", *TINY, "--config.steps=150", f"--workdir={workdir}"]
    subprocess.run(command, cwd=ROOT, env=one_device, check=True, timeout=300, capture_output=True)
    return workdir


def test_the_work_directory_can_be_read_without_this_package(unbroken):
    config = json.loads((unbroken / "config.json").read_text())
    assert (config["steps"], config["model"]["channels"]) == (150, [4, 4, 8])
    lines = (unbroken / "log.txt").read_text().splitlines()
    times = [datetime.datetime.fromisoformat(line[:19]) for line in lines]
    assert times == sorted(times)
    assert sum(" step 150/150 | " in line for line in lines) == 1
    assert lines[-1][19:].startswith(" done") and "holds the checkpoint of step 150" in lines[-1]


def test_a_run_leaves_everything_behind(unbroken):
    assert sorted(int(p.name) for p in (unbroken / "checkpoints").iterdir()) == [135, 150]
    names = sorted(p.name for p in (unbroken / "pictures").iterdir())
    steps = ("0000060", "0000120", "0000150")
    assert names == [f"{kind}_{s}.png" for kind in ("reconstructions", "samples") for s in steps]
    assert (unbroken / "curves.png").stat().st_size > 10_000
    assert len(list((unbroken / "tensorboard").iterdir())) == 1
    assert [r["step"] for r in records(unbroken)] == list(range(5, 151, 5))
    last = records(unbroken)[-1]
    for name in ("kimg", "images_per_second", "kl_real", "kl_rec", "kl_fake", "kl_gap", "loss_rec",
                 "hinge_rec_active", "hinge_fake_active", "loss_encoder", "loss_decoder"):  # fmt: skip
        assert np.isfinite(last[name]), name
    assert "kl_fake" not in records(unbroken)[0]  # warm-up: a plain VAE


def test_killed_five_times_and_rerun_it_ends_bit_identical(unbroken, tmp_path, start):
    moments = random.Random(7)
    for _ in range(5):
        before = len(records(tmp_path))
        process = start(tmp_path, 150)
        wait_for(lambda before=before: len(records(tmp_path)) != before or (tmp_path / "curves.png").exists(), process)
        time.sleep(moments.uniform(0, 0.8))
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
    assert not (tmp_path / "curves.png").exists()  # none of the five came to the end
    status, said = finish(start(tmp_path, 150))
    assert status == 0, said
    jax.tree.map(np.testing.assert_array_equal, state(unbroken, 150), state(tmp_path, 150))
    assert terms(tmp_path) == terms(unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_exits_cleanly(unbroken, tmp_path, start, number):
    process = start(tmp_path, 150)
    wait_for(lambda: len(records(tmp_path)) > 2, process)
    process.send_signal(number)
    status, said = finish(process)
    assert status == 75  # a shell's && goes no further, a launcher starts it again
    assert f"{number.name}: saved step" in said
    assert "Traceback" not in said
    stopped_at = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert 15 <= stopped_at < 150
    status, said = finish(start(tmp_path, 150))
    assert f"from step {stopped_at} to 150" in said
    jax.tree.map(np.testing.assert_array_equal, state(unbroken, 150), state(tmp_path, 150))


def test_a_finished_run_says_so_and_a_longer_one_goes_on(unbroken, tmp_path, start):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    assert finish(start(workdir, 150)) == (0, "")
    status, said = finish(start(workdir, 160))
    assert status == 0, said
    assert "from step 150 to 160" in said
    assert [r["step"] for r in records(workdir)][-2:] == [155, 160]


def test_celebahq_trains_on_a_small_folder(image_folder, tmp_path, start):
    """The real config at 256 pixels, with a narrow network so that two cores get through."""
    base = ("--config=configs/celebahq.py", "--config.data.source=folder", f"--config.data.path={image_folder}",
            "--config.batch_size=2",
            "--config.model.channels=(4, 4, 4, 4, 4, 4)", "--config.model.z_dim=8",
            "--config.log.every=1", "--config.checkpoint.calibration_batches=1")  # fmt: skip
    status, said = finish(start(tmp_path / "run", 2, base=base))
    assert status == 0, said
    assert "11 training and 1 held-out images of 256x256x3" in said
    assert [r["step"] for r in records(tmp_path / "run")] == [1, 2]


def refused(process):
    """What was said by a process that must end with one line and exit status 1."""
    status, said = finish(process)
    assert status == 1, said
    lines = [line for line in said.splitlines() if line.startswith("introvae_jax: error: ")]
    assert said.splitlines()[-1:] == lines, said
    assert "Traceback" not in said
    return lines[0]


def files(workdir):
    return {p: p.read_bytes() for p in pathlib.Path(workdir).rglob("*") if p.is_file()}


def test_another_experiment_s_work_directory_is_left_alone(unbroken, start):
    before = files(unbroken)
    said = refused(start(unbroken, 200, "--config.objective.margin=31.0"))
    assert "holds another experiment (config.objective.margin: 25.0 there, 31.0 now)" in said
    assert files(unbroken) == before


def test_other_images_are_refused(image_folder, tmp_path, start):
    folder = ("--config.data.source=folder", f"--config.data.path={image_folder}")
    assert finish(start(tmp_path / "run", 5, *folder))[0] == 0
    (image_folder / "01.jpg").unlink()
    assert "was trained on images other than" in refused(start(tmp_path / "run", 10, *folder))


@pytest.mark.parametrize("damage", ["cut", "missing", "flipped"])
def test_a_damaged_checkpoint_is_moved_away_and_the_one_before_is_taken(unbroken, tmp_path, start, damage):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    path = max((workdir / "checkpoints/150/state").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    status, said = finish(start(workdir, 150))
    assert status == 0, said
    assert f"{workdir}/checkpoints/150: the checkpoint is damaged" in said
    assert f"there is another one of step 135; moved to {workdir}/damaged/150_0" in said
    assert "from step 135 to 150" in said
    jax.tree.map(np.testing.assert_array_equal, state(unbroken, 150), state(workdir, 150))
    assert terms(workdir) == terms(unbroken)


def test_with_no_whole_checkpoint_left_the_run_says_so(unbroken, tmp_path, start):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    for step in (135, 150):
        shutil.rmtree(workdir / f"checkpoints/{step}/state")
    said = refused(start(workdir, 150))
    assert f"all of its checkpoints are damaged and were moved to {workdir}/damaged" in said
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["135_0", "150_0"]


def test_non_finite_numbers_stop_the_run_and_are_named(tmp_path, start):
    said = refused(start(tmp_path, 150, "--config.optim.learning_rate=1e3", "--config.checkpoint.every=1"))
    assert any(f" is {what} at step " in said for what in ("nan", "inf", "not finite"))
    assert "the last good checkpoint is step" in said or "no checkpoint had been written" in said


def test_a_collapsed_run_stops_where_it_is_asked_to_and_says_what_helps(tmp_path, start):
    """A decoder that is pulled thirty times as hard as it should be, once the VAE has learnt something."""
    failing = (
        "--config=configs/digits.py", "--config.model.channels=(8, 8, 16)", "--config.model.z_dim=8",
        "--config.objective.warmup_steps=300", "--config.objective.alpha=5", "--config.objective.alpha_d=30",
        "--config.objective.margin=60", "--config.optim.learning_rate=3e-3", "--config.log.every=20",
        "--config.checkpoint.every=100", "--config.checkpoint.calibration_batches=2", "--config.log.stop_on_collapse",
    )  # fmt: skip
    status, said = finish(start(tmp_path, 2_000, base=failing))
    assert status == 1
    *_, advice, error = said.strip().splitlines()
    assert "collapsed: loss_rec" in advice
    assert "raise beta" in advice
    assert "stopped (config.log.stop_on_collapse), the last good checkpoint is step 300" in error


def may_mount():
    """Whether this machine lets us have a mount namespace of our own."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs a mount namespace for a small file system of its own")
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path, start):
    """On a real file system of 2.5 MiB, in a mount namespace of the process's own."""
    disk, keep = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=2500k tmpfs {disk} && "$@"; status=$?; cp -r {disk}/run {keep}; exit $status'
    namespace = ("unshare", "-rm", "sh", "-c", script, "sh")
    said = refused(start(disk / "run", 5000, "--config.checkpoint.keep=100", prefix=namespace))
    assert f"{disk}/run" in said
    assert "no space left for" in said
    steps = [int(p.name) for p in (keep / "checkpoints").iterdir() if p.name.isdigit()]
    assert max(steps) >= 15
    assert int(state(keep, max(steps))["step"]) == max(steps)


def test_a_work_directory_that_cannot_be_written_is_named(tmp_path, start):
    (tmp_path / "file").touch()
    said = refused(start(tmp_path / "file" / "run", 5))
    assert f"--workdir={tmp_path}/file/run" in said
