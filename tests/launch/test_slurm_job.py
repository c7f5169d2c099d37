"""launch/slurm.sbatch as a job's batch script; a stand-in for srun runs the tasks for real."""

import json
import subprocess
import time

import pytest

# As srun: ends with the tasks' highest status, and kills those that run --wait seconds after the first has ended.
SRUN = """#!{python}
import itertools, json, os, pathlib, subprocess, sys, time

options = list(itertools.takewhile(lambda a: a.startswith("--"), sys.argv[1:]))
command = sys.argv[1 + len(options):]
wait = next(float(o.partition("=")[2]) for o in options if o.startswith("--wait="))
assert "--kill-on-bad-exit=0" in options
count = int(os.environ["SLURM_NTASKS"])
per_node = int(os.environ["TASKS_PER_NODE"])
gpus = json.loads(os.environ.get("GPUS_OF_TASKS", "null"))
tasks = []
for i in range(count):
    place = {{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i % per_node)}}
    place["SLURM_STEP_TASKS_PER_NODE"] = f"{{per_node}}(x{{count // per_node}})"
    if gpus:
        place["CUDA_VISIBLE_DEVICES"] = gpus[i]
    tasks.append(subprocess.Popen(command, env=os.environ | place, start_new_session=True))
pathlib.Path("tasks.json").write_text(json.dumps([t.pid for t in tasks]))
first = None
while any(t.poll() is None for t in tasks):
    if first is None and any(t.poll() is not None for t in tasks):
        first = time.monotonic()
    if first is not None and time.monotonic() > first + wait:
        for t in tasks:
            if t.poll() is None:
                os.killpg(t.pid, 9)
    time.sleep(0.02)
sys.exit(max(t.returncode if t.returncode >= 0 else 128 - t.returncode for t in tasks))
"""


@pytest.fixture
def job(launch, training, commands, environment):
    """A function that runs the batch script in a job of `tasks` tasks, `per_node` on each node."""
    srun = training.folder / "bin/srun"
    srun.write_text(SRUN.format(python=environment["PYTHON"]))
    srun.chmod(0o755)
    commands.answer("show hostnames", "node07\nnode08")
    commands.answer("squeue", "RUNNING")

    def run(tasks, per_node=1, **settings):
        place = {
            "SLURM_JOB_ID": "4103",
            "SLURM_JOB_NODELIST": "node[07-08]",
            "SLURM_NTASKS": str(tasks),
            "SLURM_SUBMIT_DIR": str(training.folder),
            "TASKS_PER_NODE": str(per_node),
        }
        return launch("slurm.sbatch", "--config=c.py", "--x=(1, 2)", **(place | settings))

    return run


def requeued(commands):
    return commands.calls("scontrol requeue 4103")


def test_tasks_find_each_other_and_get_the_flags(job, training, commands):
    training.plan([0], [0])
    assert job(2).returncode == 0
    for i in range(2):
        assert training.record(i)["argv"] == ["--config=c.py", "--x=(1, 2)"]
        assert training.record(i)["environment"] == {
            "JAX_COORDINATOR_ADDRESS": "node07:61447",  # 61440 + 4103 % 4096
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(i),
        }
    assert not requeued(commands)


def test_one_task_is_not_joined_to_anything(job, training):
    training.plan([0])
    assert job(1).returncode == 0
    assert training.record(0)["environment"] == {}


@pytest.mark.parametrize(
    ("per_node", "on_node", "visible", "devices"),
    [
        (1, 4, ["0,1,2,3"] * 2, ["0,1,2,3"] * 2),  # a task per node: all of its GPUs, not the first alone
        (2, 2, ["0,1"] * 4, ["0", "1"] * 2),  # a task per GPU, each sees all
        (2, 2, ["0", "1"] * 2, ["0"] * 4),  # a task per GPU, each bound to its own
        (2, 4, ["0,1,2,3"] * 4, ["0,1", "2,3"] * 2),  # a task for two GPUs
        (2, 4, ["0,1", "2,3"] * 2, ["0,1"] * 4),
    ],
)
def test_every_task_takes_its_gpus(job, training, per_node, on_node, visible, devices):
    training.plan(*[[0]] * len(visible))
    job(len(visible), per_node, GPUS_OF_TASKS=json.dumps(visible), SLURM_GPUS_ON_NODE=str(on_node))
    taken = [training.record(i)["environment"]["JAX_LOCAL_DEVICE_IDS"] for i in range(len(visible))]
    assert taken == devices


@pytest.mark.parametrize("ends", [([75], [75]), ([75], [-9]), ([-11], [0])])
def test_the_job_is_requeued_when_a_rerun_goes_on(job, training, commands, ends):
    training.plan(*ends)
    result = job(2)
    assert result.returncode == 75
    assert len(requeued(commands)) == 1
    assert "requeued, 1 of at most 100 times" in result.stderr


@pytest.mark.parametrize("ends", [([1], [75]), ([-9], [1]), ([0], [2])])
def test_a_person_must_act_whatever_the_other_tasks_say(job, training, commands, ends):
    training.plan(*ends)
    result = job(2)
    assert result.returncode == 1
    assert not requeued(commands)


def test_a_task_that_hangs_after_another_died_is_killed(job, training, commands):
    training.plan([75], ["hang"])
    assert job(2, GRACE="1").returncode == 75
    assert len(requeued(commands)) == 1


def test_a_cancelled_job_stays_cancelled(job, training, commands):
    commands.state.write_text(commands.state.read_text().replace("RUNNING", "COMPLETING"))
    training.plan([75])
    assert job(1).returncode == 75
    assert not requeued(commands)


def test_requeueing_has_an_end(job, training, commands):
    training.plan([75])
    result = job(1, SLURM_RESTART_COUNT="3", RESTARTS="3")
    assert result.returncode == 75
    assert "requeued 3 times already" in result.stderr
    assert not requeued(commands)


def test_a_failure_of_srun_itself_needs_a_person(job, training, commands):
    (training.folder / "bin/srun").write_text("#!/bin/sh\necho 'srun: error: no such partition' >&2\nexit 1\n")
    assert job(1).returncode == 1
    assert not requeued(commands)


def test_the_time_limits_signal_saves_and_requeues(job, training, commands, tmp_path):
    training.plan(["told"], ["told"])
    # As Slurm with --signal=TERM: to every process of every task, but not to the batch script.
    script = """
        for i in $(seq 400); do [ -e records/0_0.json ] && [ -e records/1_0.json ] && break; sleep 0.05; done
        for task in $(tr -d '[],' < tasks.json); do kill -TERM -- "-$task"; done
    """
    watcher = subprocess.Popen(["bash", "-c", script], cwd=tmp_path)
    began = time.monotonic()
    result = job(2)
    assert watcher.wait(timeout=30) == 0
    assert result.returncode == 75
    assert time.monotonic() - began < 30
    assert "status 75: requeued" in result.stderr  # the tasks' own status: their shells outlived the signal
    assert training.saved() == ["0", "1"]
    assert [training.record(i)["signals"] for i in range(2)] == [["SIGTERM"]] * 2
    assert len(requeued(commands)) == 1
