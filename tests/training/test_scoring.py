"""Scores while training: they change nothing, outlive every kill, and the best checkpoint is known and kept."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from runs import state, terms, wait_for
from tiny import DIGITS

from configs import digits
import introvae_jax
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError
from introvae_jax.training import train_loop
from introvae_jax.training.scoring import Scoring, Stopped
from introvae_jax.training.stop import StopRequest

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = (
    *DIGITS, "--config.objective.name=vae", "--config.objective.warmup_steps=0", "--config.log.every=5",
    "--config.checkpoint.every=6", "--config.checkpoint.keep=1", "--config.log.pictures_every=1000",
    "--config.steps=30",
)  # fmt: skip
SCORED = ("--config.eval.every=10", "--config.eval.metrics=('swd200', 'msssim20')", "--config.eval.best=msssim20")


@pytest.fixture(scope="module")
def start(one_device):
    """A function that starts the main job."""
    started = []

    def start(workdir, *more):
        command = [sys.executable, "-m", "introvae_jax.main", *TINY, f"--workdir={workdir}", *more]
        process = subprocess.Popen(
            command, cwd=ROOT, env=one_device, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def finish(process):
    status, said = process.wait(timeout=300), process.stderr.read()
    assert "Traceback" not in said, said
    return status, said


def evaluations(workdir):
    return [record for record in terms(workdir) if "swd200" in record]


def steps(workdir):
    return sorted(int(p.name) for p in (pathlib.Path(workdir) / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, start):
    """A scored run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    status, said = finish(start(workdir, *SCORED))
    assert status == 0, said
    (workdir / "said.txt").write_text(said)
    return workdir


def test_records_of_evaluations(unbroken):
    found = evaluations(unbroken)
    assert [record["step"] for record in found] == [10, 20, 30]
    assert list(found[0]) == ["step", "kimg", "swd200", "swd200_32", "swd200_16", "msssim20"]
    assert [record["step"] for record in terms(unbroken) if "loss_rec" in record] == [
        5,
        6,
        10,
        12,
        15,
        18,
        20,
        24,
        25,
        30,
    ]
    (events,) = (unbroken / "tensorboard").iterdir()
    for name in (b"eval/swd200", b"eval/swd200_16", b"eval/msssim20", b"loss/rec"):
        assert name in events.read_bytes()
    said = (unbroken / "said.txt").read_text()
    assert f"step 20/30 | evaluation | swd200 {found[1]['swd200']:.5g} | msssim20 {found[1]['msssim20']:.5g}" in said


def test_the_best_checkpoint_is_kept_beside_the_latest(unbroken):
    """By the lower MS-SSIM; of the others that were scored nothing is left."""
    best = min(evaluations(unbroken), key=lambda record: record["msssim20"])["step"]
    assert steps(unbroken) == sorted({best, 30})
    assert introvae_jax.load(unbroken, step="best").step == best
    assert introvae_jax.load(unbroken).step == 30
    assert f"the best one is step {best}" in (unbroken / "said.txt").read_text()


def test_scoring_changes_no_parameter(unbroken, tmp_path, start):
    assert finish(start(tmp_path, "--config.log.every=5"))[0] == 0
    assert not evaluations(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state(unbroken, 30), state(tmp_path, 30))


def test_killed_amid_training_and_amid_scoring_it_ends_the_same(unbroken, tmp_path, start):
    for reached, wait in ((lambda: len(terms(tmp_path)) > 1, 0.05), (lambda: evaluations(tmp_path)[1:], 0.0)):
        process = start(tmp_path, *SCORED)
        wait_for(reached, process)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        finish(process)
    status, said = finish(start(tmp_path, *SCORED))
    assert status == 0, said
    jax.tree.map(np.testing.assert_array_equal, state(unbroken, 30), state(tmp_path, 30))
    assert terms(tmp_path) == terms(unbroken)
    assert steps(tmp_path) == steps(unbroken)


def test_a_stop_amid_scoring_saves_and_ends_soon_and_the_score_is_made_up_for(unbroken, tmp_path, start):
    slow = ("--config.eval.every=10", "--config.eval.metrics=('swd4500',)")
    process = start(tmp_path, *slow)
    wait_for(lambda: any(record["step"] == 10 for record in terms(tmp_path)), process)
    asked = time.time()
    process.send_signal(signal.SIGTERM)
    status, said = finish(process)
    assert status == 75
    assert "SIGTERM: saved step 10" in said
    assert time.time() - asked < 15
    assert steps(tmp_path)[-1] == 10
    assert not any("swd4500" in record for record in terms(tmp_path))
    assert finish(start(tmp_path, *SCORED))[0] == 0
    jax.tree.map(np.testing.assert_array_equal, state(unbroken, 30), state(tmp_path, 30))
    assert evaluations(tmp_path) == evaluations(unbroken)
    assert steps(tmp_path) == steps(unbroken)


def test_a_finished_run_that_was_not_scored_is_scored_and_then_done(unbroken, tmp_path, start):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints/30/metrics")
    (workdir / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in terms(workdir) if record not in evaluations(workdir)[2:])
    )
    assert "evaluation" in finish(start(workdir, *SCORED))[1]
    assert evaluations(workdir) == evaluations(unbroken)
    assert Checkpoints(workdir).best() == Checkpoints(unbroken).best()
    process = start(workdir, *SCORED)
    assert (finish(process), process.returncode) == ((0, ""), 0)  # "already trained" goes to standard output


def test_the_best_is_still_known_after_a_resumption_that_scores_nothing(unbroken, tmp_path, start):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    best = Checkpoints(workdir).best()
    assert finish(start(workdir, "--config.eval.every=0", "--config.steps=42"))[0] == 0
    assert Checkpoints(workdir).best() == best
    assert steps(workdir) == sorted({best, 42})


def test_missing_weights_are_named_before_anything_is_made(tmp_path):
    config = digits.get_config("vae")
    config.eval.every, config.eval.metrics, config.eval.inception = 10, ("fid1k",), str(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match=r"nowhere\.pth: there is no such file"):
        train_loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_that_cannot_be_computed_are_named_before_anything_is_made(tmp_path):
    config = digits.get_config("vae")
    config.eval.every, config.eval.metrics = 10, ("swd16k",)
    with pytest.raises(UserError, match="swd16k needs 16,000 real images, and there are 4,500: ask for swd4500"):
        train_loop.train(config, tmp_path / "run")
    config = digits.get_config("age")
    config.eval.every, config.eval.metrics = 10, ("likelihood8",)
    with pytest.raises(UserError, match=r"model\.prior = 'sphere'"):
        train_loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metrics", "best", "decisive", "sign"),
    [(("swd8", "reconstruction4"), "", "swd8", -1), (("swd8", "active_units"), "active_units", "active_units", 1),
     ((" msssim4",), " msssim4", "msssim4", -1), (("likelihood2", "msssim2"), "", "elbo", 1)],
)  # fmt: skip
def test_the_rank_is_higher_for_a_better_model(metrics, best, decisive, sign, unbroken):
    trained = introvae_jax.load(unbroken, batch_size=8)
    config = digits.get_config("vae")
    config.eval.metrics, config.eval.best = metrics, best
    splits = train_loop.source.open_splits(config.data)
    results, rank = Scoring(config, splits, "RUN", StopRequest()).score(trained)
    assert rank == sign * next(result.value for result in results if result.name == decisive)


def test_a_stop_is_seen_between_two_batches(unbroken):
    config, stop = digits.get_config("vae"), StopRequest()
    config.eval.metrics = ("active_units",)
    scoring = Scoring(config, train_loop.source.open_splits(config.data), "RUN", stop)
    stop.requested = "SIGTERM"
    with pytest.raises(Stopped):
        scoring.score(introvae_jax.load(unbroken))


def test_of_many_checkpoints_the_latest_and_the_best_stay(tmp_path):
    tree = {"w": np.zeros(3)}
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, rank in ((1, None), (2, -5.0), (3, -1.0), (4, -7.0), (5, None), (6, -2.0), (7, None)):
        checkpoints.save(step, tree, tree, {})
        if rank is not None:
            checkpoints.add_scores(step, {"fid10k": -rank, "rank": rank})
        checkpoints.wait()
    assert (checkpoints.steps(), checkpoints.best()) == ([3, 7], 3)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert (again.steps(), again.best()) == ([3, 7], 3)
    again.close()


def save_scored(workdir, first, metric, ranks):
    """Checkpoints of steps from `first` on in a run that keeps one; None for `metric` in a run that scores none."""
    checkpoints = Checkpoints(workdir, keep=1)
    for step, rank in enumerate(ranks, first):
        checkpoints.save(step, {"w": np.zeros(3)}, {"w": np.zeros(3)}, {})
        if metric is not None:
            checkpoints.add_scores(step, {"rank": rank, "rank_of": metric})
    checkpoints.close()
    return checkpoints.steps(), checkpoints.best()


def test_ranks_by_different_metrics_are_not_compared_and_the_best_of_each_stays(tmp_path):
    assert save_scored(tmp_path, 1, "reconstruction", (-0.1, -0.2)) == ([1, 2], 1)
    assert save_scored(tmp_path, 3, "swd1000", (-90.0, -80.0, -85.0)) == ([1, 4, 5], 4)
    assert save_scored(tmp_path, 6, "reconstruction", (-0.05,)) == ([4, 6], 6)


def test_the_best_checkpoint_outlives_a_resumption_without_scores(tmp_path):
    assert save_scored(tmp_path, 1, "swd1000", (-80.0, -90.0)) == ([1, 2], 1)
    assert save_scored(tmp_path, 3, None, (0, 0, 0)) == ([1, 5], 1)


def test_a_rank_that_is_not_a_number_is_the_worst(tmp_path):
    assert save_scored(tmp_path, 1, "swd1000", (float("nan"), -90.0, float("nan"))) == ([2, 3], 2)


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"    ", b"\x00" * 40, b'{"rank": 1.0, "rank_of": "s', b"\xff\xfe{}", b"[" * 5000, b"[]", b"null", b"3",
     b"{}", b'{"rank": "1"}', b'{"rank": null}', b'{"rank": true}', b'{"rank": [1]}', b'{"rank": 1, "rank_of": 3}'],
    ids=range(16),
)  # fmt: skip
def test_damaged_scores_are_set_aside_and_the_checkpoint_counts_as_not_scored(tmp_path, capfd, content):
    save_scored(tmp_path, 1, "swd1000", (-80.0, -90.0))
    file = tmp_path / "checkpoints/1/metrics/metrics"
    file.write_bytes(content)
    read_only = Checkpoints(tmp_path)
    assert (read_only.steps(), read_only.best()) == ([1, 2], 2)
    assert "checkpoints/1: its scores are damaged" in capfd.readouterr().err
    assert file.read_bytes() == content
    checkpoints = Checkpoints(tmp_path, keep=1)  # as a run opens them
    assert "checkpoints/1: its scores are damaged" in capfd.readouterr().err
    assert (tmp_path / "damaged/1_metrics_0/metrics").read_bytes() == content
    assert not checkpoints.is_scored(1)
    assert checkpoints.is_scored(2)
    checkpoints.add_scores(1, {"rank": -95.0, "rank_of": "swd1000"})
    assert checkpoints.steps() == [2]
    checkpoints.close()
