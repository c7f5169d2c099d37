"""Several processes train one model: real ones, joined by jax.distributed."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import portpicker
import pytest
from runs import records, state, wait_for

from introvae_jax import disk, processes
from introvae_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPT = pathlib.Path(__file__).parent / "one_of_several.py"
TINY = ("model.channels=(4,4,8)", "model.z_dim=4", "batch_size=8", "objective.warmup_steps=0", "log.every=5",
        "checkpoint.every=10", "log.pictures_every=60", "checkpoint.calibration_batches=2")  # fmt: skip
STOP, END = 20, 32


def train(workdir, count, steps, environment, *values, devices=1):
    """A run of `count` processes with so many devices each; returns once all have ended well."""
    if devices > 1:
        flag = f"--xla_force_host_platform_device_count={devices}"
        environment = environment | {"XLA_FLAGS": flag, "NPROC": str(2 * devices)}
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


LAYOUTS = ((2, 2), (1, 1), (4, 1), (1, 4))  # processes, devices of each


def test_every_layout_trains_the_same_model_and_takes_over_from_every_other(tmp_path, one_device):
    """20 steps on each in turn, from the checkpoint of the one before, beside an unbroken run on one device."""
    rate = 1e-4  # a larger one makes rounding larger
    every = ("log.every=1", "checkpoint.every=20", "checkpoint.keep=9", f"optim.learning_rate={rate}")
    relay, whole = tmp_path / "relay", tmp_path / "whole"
    train(whole, 1, 20 * len(LAYOUTS), one_device, *every)
    for steps, (count, devices) in zip((20, 40, 60, 80), LAYOUTS, strict=True):
        train(relay, count, steps, one_device, *every, devices=devices)
        expected, found = state(whole, steps), state(relay, steps)
        for kind in ("encoder", "decoder"):
            apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), found[kind]["params"], expected[kind]["params"])
            assert max(jax.tree.leaves(apart)) < rate / 10, (steps, kind)  # 20 steps move a weight by up to 20 rates
        assert np.array_equal(found["key"], expected["key"])
    assert sorted(losses(whole)) == list(range(1, 81))
    assert losses(relay) == pytest.approx(losses(whole), rel=1e-4)


def test_the_device_cache_of_two_processes_feeds_the_same_images(whole, tmp_path, one_device):
    train(tmp_path, 2, 5, one_device, "data.cache='device'")
    assert losses(tmp_path)[5] == pytest.approx(losses(whole)[5], rel=1e-4)


@pytest.fixture
def pair(one_device):
    """A function that starts the main job as two processes; they end with the test at the latest."""
    started = []

    def start(workdirs, *more):
        port = portpicker.pick_unused_port()
        for i, workdir in enumerate(workdirs):
            command = [
                sys.executable, "-m", "introvae_jax.main", "--config=configs/digits.py", f"--workdir={workdir}",
                *(f"--config.{value}" for value in TINY), "--config.steps=100000", "--peer_timeout=6",
                f"--coordinator_address=localhost:{port}", "--num_processes=2", f"--process_id={i}", *more,
            ]  # fmt: skip
            started.append(subprocess.Popen(command, cwd=ROOT, env=one_device, stderr=subprocess.PIPE, text=True))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(processes, seconds=90):
    """Statuses and what was said, of processes that must end by themselves."""
    said = [process.communicate(timeout=seconds)[1] for process in processes]
    assert not any("Traceback" in text for text in said), said
    return [process.returncode for process in processes], said


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path, pair):
    processes = pair([tmp_path / "run"] * 2)
    wait_for(lambda: len(records(tmp_path / "run")) > 1, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    statuses, said = ended(processes)
    assert statuses == [75, 75]
    (line,) = re.findall(r"SIGTERM: saved step (\d+); rerun the same command to resume", said[0])
    assert int(line) == max(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir())


@pytest.mark.parametrize(("number", "who"), [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGSTOP, 1)])
def test_the_others_end_with_a_line_when_one_is_gone(tmp_path, pair, number, who):
    processes = pair([tmp_path / "run"] * 2)
    wait_for(
        lambda: len(records(tmp_path / "run")) > 3 and list((tmp_path / "run").glob("checkpoints/10")), processes[0]
    )
    processes[who].send_signal(number)
    (status,), (said,) = ended([processes[1 - who]])
    assert status == 75
    assert "introvae_jax: error: " in said.splitlines()[-1]
    assert "the last good checkpoint is step " in said.splitlines()[-1]


def test_a_second_job_in_a_work_directory_in_use_is_refused_by_all_its_processes(tmp_path, pair):
    (tmp_path / "run").mkdir()
    with disk.file_lock(tmp_path / "run/.lock", "training"):
        statuses, said = ended(pair([tmp_path / "run"] * 2))
    assert statuses == [1, 1]
    for text in said:
        assert f"{tmp_path}/run: another process is training there now (process {os.getpid()} on " in text


def test_processes_that_do_not_share_the_work_directory_are_told(tmp_path, pair):
    statuses, said = ended(pair([tmp_path / "one", tmp_path / "other"]))
    assert statuses[1] == 1
    assert f"--workdir={tmp_path}/other: process 1 does not see what process 0 writes there" in said[1]


@pytest.mark.parametrize(
    ("environment", "several"),
    [({}, False), ({"SLURM_NTASKS": "4"}, False), ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, True),
     ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, False), ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
     ({"TPU_WORKER_HOSTNAMES": "localhost"}, False), ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
     ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, True)],
)  # fmt: skip
def test_a_cluster_says_whether_there_are_several(environment, several):
    assert processes.is_several(environment) == several


def test_the_launchers_variables_name_a_process():
    three = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JOB_COMPLETION_INDEX": "2"}
    assert processes.named(three) == ("a:1", 4, 2)
    assert processes.named(three | {"JAX_PROCESS_ID": "3"}) == ("a:1", 4, 3)
    assert processes.named({"JOB_COMPLETION_INDEX": "2"}) is None
    with pytest.raises(UserError, match="whole numbers"):
        processes.named(three | {"JAX_NUM_PROCESSES": "four"})


@pytest.mark.parametrize(
    ("given", "message"),
    [((None, 2, None), "given together"), (("host", 2, 0), "must be HOST:PORT"), (("host:1", 2, 2), "id from 0 to")],
)  # fmt: skip
def test_contradictions_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        processes.start(*given, peer_timeout=10)


def test_a_process_that_is_left_alone_says_so(one_device):
    script = (
        "from introvae_jax import processes\nprocesses.INIT_TIMEOUT_S = 2\n"
        f"processes.start('localhost:{portpicker.pick_unused_port()}', 2, 1, peer_timeout=10)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=one_device, capture_output=True, text=True,
                          timeout=50, check=False)  # fmt: skip
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1].endswith("process 1 of 2: not all joined within 2 s")


def test_a_step_that_does_not_end_ends_the_process(tmp_path, one_device):
    """As a read from a dead disk would hang."""
    script = (
        "import time\nfrom introvae_jax.training.watch import Watch\n"
        "with Watch(peer_timeout=5, step_timeout=1) as watch:\n"
        "    watch.keep('the last good checkpoint is step 30 in RUN')\n"
        "    with watch.expecting('step 31'):\n        time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=one_device, capture_output=True, text=True,
                          timeout=50, check=False)  # fmt: skip
    assert done.returncode == 75
    assert done.stderr == (
        "introvae_jax: error: step 31 has taken more than 1 s (--step_timeout): stopped, the last good checkpoint is "
        "step 30 in RUN; rerun the same command to resume\n"
    )
