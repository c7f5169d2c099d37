"""Several processes train one model: real ones, joined by jax.distributed."""

import json
import pathlib
import subprocess
import sys

import portpicker
import pytest

SCRIPT = pathlib.Path(__file__).parent / "one_of_several.py"
TINY = ("model.channels=(4,4,8)", "model.z_dim=4", "batch_size=8", "objective.warmup_steps=5", "log.every=5",
        "checkpoint.every=10", "log.pictures_every=60", "checkpoint.calibration_batches=2")  # fmt: skip
STOP, END = 20, 32


def train(workdir, count, steps, environment, *values):
    """A run of `count` processes; returns once all have ended well."""
    port = portpicker.pick_unused_port()
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(port), str(count), str(i), workdir, *TINY, f"steps={steps}", *values],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)


def seen(workdir, count, steps):
    """Step -> digests of the global batch, put together from all processes. Batches read ahead are left out."""
    parts = []
    for i in range(count):
        lines = (workdir / f"seen_{count}_{i}_until_{steps}.txt").read_text().splitlines()
        parts.append({int(step): images for step, *images in map(str.split, lines) if int(step) <= steps})
    assert len({tuple(part) for part in parts}) == 1
    return {step: [image for part in parts for image in part[step]] for step in parts[0]}


def losses(workdir):
    return {r["step"]: r["loss_rec"] for r in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    """An unbroken run of one process; read only."""
    workdir = tmp_path_factory.mktemp("whole")
    train(workdir, 1, END, one_device)
    return workdir


def test_stopped_on_two_processes_and_resumed_on_one_a_run_sees_what_an_unbroken_one_sees(whole, tmp_path, one_device):
    train(tmp_path, 2, STOP, one_device)
    train(tmp_path, 1, END, one_device)
    two, one, unbroken = seen(tmp_path, 2, STOP), seen(tmp_path, 1, END), seen(whole, 1, END)
    assert (min(two), max(two), min(one), max(one)) == (1, STOP, STOP + 1, END)
    assert {**two, **one} == unbroken
    assert all(len(set(images)) == 8 for images in unbroken.values())
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=0.01)  # rounding, which Adam makes larger
    assert losses(tmp_path)[5] == pytest.approx(losses(whole)[5], rel=1e-4)


def test_the_device_cache_of_two_processes_feeds_the_same_images(whole, tmp_path, one_device):
    train(tmp_path, 2, 5, one_device, "data.cache='device'")
    assert losses(tmp_path)[5] == pytest.approx(losses(whole)[5], rel=1e-4)
