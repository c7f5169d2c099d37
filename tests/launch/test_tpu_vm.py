"""launch/tpu_vm.sh with a stand-in for gcloud that answers from a script of states."""

import pytest

REQUEST = "queued-resources describe"
NODE = "tpu-vm describe"
STATUS = "tpu_worker.sh status"
FLAGS = ("--config=configs/celebahq.py:1024", "--config.model.channels=(8, 8)", "--workdir=gs://bucket/run")
NOT_FOUND = ("ERROR: NOT_FOUND: no such resource", 1)


@pytest.fixture
def run(launch):
    """A function that runs `launch/tpu_vm.sh [OPTIONS] run ivae zone v5litepod-16 FLAGS` without pauses."""

    def run(*options, flags=FLAGS):
        return launch("tpu_vm.sh", "--poll=0", *options, "run", "ivae", "zone", "v5litepod-16", *flags)

    return run


def test_machines_are_requested_awaited_installed_and_trained_on(run, commands):
    commands.answer(REQUEST, NOT_FOUND, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    commands.answer(NODE, "READY")
    commands.answer(STATUS, ("no such file", 1), "training: 0\ntraining: 0")
    result = run("--spot")
    assert result.returncode == 0, result.stderr
    (create,) = commands.calls("queued-resources create")
    assert create == (
        "gcloud compute tpus queued-resources create ivae --zone=zone --node-id=ivae "
        "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    steps = commands.calls("create|^git|scp|uv pip|tpu_worker.sh (train|follow)")
    assert ["create" in steps[0], "archive" in steps[1], " scp " in steps[2], "'.[tpu]'" in steps[3].replace('"', "'")]
    assert all("--worker=all" in step for step in (steps[2], steps[3], steps[4]))
    assert "--worker=0" in steps[5]
    assert "tpu_worker.sh follow" in steps[5]
    unquoted = steps[4].replace("\\", "")
    assert f"introvae_jax/launch/tpu_worker.sh train {' '.join(FLAGS)}" in unquoted
    assert "warning" not in result.stderr


@pytest.mark.parametrize(
    ("kind", "version"),
    [("v5p-8", "v2-alpha-tpuv5"), ("v6e-8", "v2-alpha-tpuv6e"), ("v4-8", "tpu-ubuntu2204-base")],
)
def test_each_kind_of_machine_gets_its_software(launch, kind, version):
    out = launch("tpu_vm.sh", "--dry-run", "create", "ivae", "zone", kind).stdout
    assert f"--runtime-version={version} " in out
    out = launch("tpu_vm.sh", "--dry-run", "--runtime=mine", "create", "ivae", "zone", kind).stdout
    assert "--runtime-version=mine " in out


@pytest.mark.parametrize(
    ("requests", "nodes"),
    [
        (["ACTIVE", "SUSPENDED", "SUSPENDED", NOT_FOUND, "ACTIVE"], ["READY"]),
        (["ACTIVE", "ACTIVE", "ACTIVE", NOT_FOUND, "ACTIVE"], ["READY", "PREEMPTED", "PREEMPTED", "READY"]),
    ],
    ids=["suspended", "preempted, and the request is slow to notice"],
)
def test_a_preempted_run_gets_new_machines_and_goes_on(run, commands, requests, nodes):
    commands.answer(REQUEST, *requests)
    commands.answer(NODE, *nodes)
    commands.answer(
        STATUS, "training: gone", ("Connection timed out", 255), ("Connection timed out", 255), "training: 0"
    )
    result = run("--spot")
    assert result.returncode == 0, result.stderr
    (delete,) = commands.calls("queued-resources delete")
    assert delete.endswith("delete ivae --zone=zone --force --quiet")
    trained = commands.calls("tpu_worker.sh train")
    assert len(trained) == 2
    assert trained[0] == trained[1]
    assert len(commands.calls("uv pip")) == 2
    assert "lost: started again, 1 of at most 100 times" in result.stderr


def test_status_75_starts_again_on_the_same_machines(run, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(NODE, "READY")
    commands.answer(STATUS, "training: gone", "training: 75\ntraining: 134", "training: 0\ntraining: 0")
    assert run().returncode == 0
    assert len(commands.calls("tpu_worker.sh train")) == 2
    assert len(commands.calls("uv pip")) == 1
    assert not commands.calls("create|delete")


def test_status_1_of_any_worker_stops_and_shows_the_log(run, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(NODE, "READY")
    commands.answer(STATUS, "training: gone", "training: 75\ntraining: 1\ntraining: 137")
    commands.answer("tail -n 10", "introvae_jax: error: the disk is full")
    result = run()
    assert result.returncode == 1
    assert "the disk is full" in result.stdout
    assert len(commands.calls("tpu_worker.sh train")) == 1


def test_it_gives_up_after_so_many_restarts(run, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(NODE, "READY")
    commands.answer(STATUS, "training: 75")
    result = run("--restarts=2")
    assert result.returncode == 75
    assert len(commands.calls("tpu_worker.sh train")) == 3
    assert "started again 2 times already" in result.stderr


def test_a_request_that_fails_again_and_again_ends(run, commands):
    commands.answer(REQUEST, "FAILED")
    result = run("--restarts=3")
    assert result.returncode == 75
    assert len(commands.calls("queued-resources delete")) == 3
    assert not commands.calls("tpu_worker.sh")


def test_a_refused_request_needs_a_person(run, commands):
    commands.answer(REQUEST, NOT_FOUND)
    commands.answer("queued-resources create", ("ERROR: no quota", 1))
    result = run()
    assert result.returncode == 1
    assert "no quota" in result.stderr


def test_a_worker_that_hangs_after_another_died_is_killed(run, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(NODE, "READY")
    commands.answer(
        STATUS, "training: gone", "training: 134\ntraining: running", "training: 134\ntraining: 137", "training: 0"
    )
    assert run("--grace=0").returncode == 0
    assert len(commands.calls("--worker=all .*tpu_worker.sh kill KILL")) == 1
    assert len(commands.calls("tpu_worker.sh train")) == 2


def test_a_training_that_runs_already_is_followed_not_installed_over(run, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(NODE, "READY")
    commands.answer(STATUS, "training: running\ntraining: running", "training: running\ntraining: 0", "training: 0")
    assert run().returncode == 0
    assert not commands.calls("uv pip|scp")
    assert len(commands.calls("tpu_worker.sh follow")) == 2


def test_a_workdir_that_dies_with_the_machines_is_warned_of(launch, commands):
    result = launch("tpu_vm.sh", "start", "ivae", "zone", "--config=c.py", "--workdir=runs/x")
    assert "warning: without --workdir=gs://" in result.stderr
    assert len(commands.calls("tpu_worker.sh train")) == 1


def test_watch_alone_tells_how_the_training_ended(launch, commands):
    commands.answer(STATUS, "training: 75\ntraining: 75")
    assert launch("tpu_vm.sh", "watch", "ivae", "zone").returncode == 75


def test_the_small_actions_make_their_calls(launch, commands):
    for action in ("stop", "fetch", "delete"):
        assert launch("tpu_vm.sh", action, "ivae", "zone").returncode == 0
    stop, fetch, delete = commands.calls()
    assert stop.endswith("--command=introvae_jax/launch/tpu_worker.sh kill TERM")
    assert fetch.endswith("scp --recurse ivae:introvae_jax/runs . --zone=zone --worker=0")
    assert delete.endswith("queued-resources delete ivae --zone=zone --force --quiet")
