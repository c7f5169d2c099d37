"""Checkpoints without a training: saved, restored, proven damaged, set aside, ranked and deleted."""

import contextlib
import os

import numpy as np
import pytest

from introvae_jax.checkpoints.checkpoint import Checkpoints, Damaged
from introvae_jax.errors import UserError

RUN = {"config": {"seed": 3}, "data_identity": "digits", "note": ["kept", 1.5]}
STATISTICS = {"ema": {"mean": np.arange(3.0)}}


def state(step=0):
    return {
        "step": np.array(step, np.int32),
        "params": {"kernel": np.arange(12.0).reshape(3, 4) + step, "bias": np.ones(4)},
    }


@contextlib.contextmanager
def opened(workdir, keep=None):
    checkpoints = Checkpoints(workdir, keep=keep)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, state(step), STATISTICS, RUN)
    checkpoints.wait()


@pytest.fixture
def workdir(tmp_path):
    """A work directory with checkpoints of steps 1 and 2."""
    with opened(tmp_path / "run", keep=2) as checkpoints:
        save(checkpoints, 1, 2)
    return tmp_path / "run"


def damage(folder):
    """Flips a bit of a file that is read by every restore."""
    path = folder / "state" / "manifest.ocdbt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_what_is_saved_is_restored(workdir):
    with opened(workdir) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        run = checkpoints.restore_run(2)
        assert {key: run[key] for key in RUN} == RUN
        for step in (1, 2):
            restored = checkpoints.restore_state(step, state())
            assert int(restored["step"]) == step
            np.testing.assert_array_equal(restored["params"]["kernel"], state(step)["params"]["kernel"])
    with opened(workdir) as checkpoints:
        part, statistics = checkpoints.restore_model(2, {"params": state()["params"]}, STATISTICS)
        np.testing.assert_array_equal(part["params"]["kernel"], state(2)["params"]["kernel"])
        np.testing.assert_array_equal(statistics["ema"]["mean"], STATISTICS["ema"]["mean"])


def test_another_model_is_named_and_is_no_damage(workdir):
    with opened(workdir) as checkpoints:
        with pytest.raises(UserError, match=r"other arrays \(such as params/other\)") as caught:
            checkpoints.restore_state(1, {**state(), "params": {**state()["params"], "other": np.ones(1)}})
        assert not isinstance(caught.value, Damaged)
    with opened(workdir) as checkpoints:
        wider = {"params": {"kernel": np.ones((3, 5))}}
        with pytest.raises(UserError, match=r"params/kernel has shape \[3, 4\], but .* requires \[3, 5\]") as caught:
            checkpoints.restore_model(1, wider, STATISTICS)
        assert not isinstance(caught.value, Damaged)
        with pytest.raises(UserError, match=r"params/other is missing"):
            checkpoints.restore_model(1, {"params": {"other": np.ones(1)}}, STATISTICS)


def test_a_changed_byte_is_proven(workdir):
    path = damage(workdir / "checkpoints" / "2")
    with opened(workdir) as checkpoints:
        with pytest.raises(Damaged, match=rf"checksum .*{path.name} is wrong\); there is another one of step 1"):
            checkpoints.restore_state(2, state())
        checkpoints.restore_state(1, state())


def test_a_file_that_cannot_be_read_is_no_damage(workdir, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", str(workdir))

    with opened(workdir) as checkpoints:
        monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
        with pytest.raises(UserError, match=r"cannot be read .*make it readable for this user") as caught:
            checkpoints.restore_state(2, state())
        assert not isinstance(caught.value, Damaged)
    assert (workdir / "checkpoints" / "2").is_dir()


def test_numbers_that_are_not_finite_are_damage(tmp_path):
    with opened(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(1, {"weights": np.float32([1, np.nan])}, STATISTICS, RUN)
        checkpoints.wait()
        with pytest.raises(Damaged, match=r"weights of its state is not finite.*there is no other"):
            checkpoints.restore_state(1, {"weights": np.zeros(2, np.float32)})


def test_a_damaged_one_is_set_aside_and_training_can_write_it_again(workdir):
    content = damage(workdir / "checkpoints" / "2").read_bytes()
    with opened(workdir, keep=2) as checkpoints:
        assert checkpoints.damaged_steps() == []
        for number in range(2):
            place = checkpoints.set_aside(2)
            assert (place.name, checkpoints.steps(), checkpoints.damaged_steps()) == (f"2_{number}", [1], [2])
            save(checkpoints, 2)
            checkpoints.restore_state(2, state())
    kept = (path for path in (workdir / "damaged" / "2_0").rglob("*") if path.is_file())
    assert content in [path.read_bytes() for path in kept]


def test_the_latest_stay(tmp_path):
    with opened(tmp_path / "run", keep=2) as checkpoints:
        save(checkpoints, 1, 2, 3, 4)
        assert checkpoints.steps() == [3, 4]
        assert checkpoints.best() is None


def test_the_best_by_each_metric_stays_beside_the_latest(tmp_path):
    ranks = {1: ("swd", -3.0), 2: ("swd", -1.0), 3: ("swd", -2.0), 4: ("fid", -50.0), 5: ("fid", float("nan"))}
    with opened(tmp_path / "run", keep=1) as checkpoints:
        for step, (metric, rank) in ranks.items():
            save(checkpoints, step)
            assert not checkpoints.is_scored(step)
            checkpoints.add_scores(step, {"rank": rank, "rank_of": metric})
            assert checkpoints.is_scored(step)
        assert checkpoints.steps() == [2, 4, 5]  # best by swd; best by fid; the latest
        assert checkpoints.best() == 4
        save(checkpoints, 6)
        checkpoints.add_scores(6, {"rank": -40.0, "rank_of": "fid"})
        assert checkpoints.steps() == [2, 6]
    with opened(tmp_path / "run") as checkpoints:
        assert checkpoints.best() == 6


@pytest.mark.parametrize("content", ["", "[]", '{"rank": "high"}', '{"rank": true}', '{"rank": 1, "rank_of": 2}'])
def test_damaged_scores_do_not_cost_the_checkpoint(workdir, capfd, content):
    (workdir / "checkpoints" / "1" / "metrics").mkdir()
    (workdir / "checkpoints" / "1" / "metrics" / "metrics").write_text(content)
    with opened(workdir) as checkpoints:
        assert not checkpoints.is_scored(1)
        assert "counts as not scored" in capfd.readouterr().err
    with opened(workdir, keep=2) as checkpoints:
        assert "its scores are damaged" in capfd.readouterr().err
        assert (checkpoints.steps(), checkpoints.damaged_steps()) == ([1, 2], [])
        checkpoints.restore_state(1, state())
    assert (workdir / "damaged" / "1_metrics_0" / "metrics").read_text() == content


def test_a_write_that_fails_names_the_last_good_one(workdir, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, os.strerror(28))

    with opened(workdir, keep=2) as checkpoints, monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
        with pytest.raises(UserError, match=r"could not write .*the last good checkpoint is step 2") as caught:
            save(checkpoints, 3)
    assert caught.value.status == 1


def test_a_directory_without_checkpoints_is_named(tmp_path):
    with pytest.raises(UserError, match="no checkpoints there; --workdir must be"):
        Checkpoints(tmp_path)
    with opened(tmp_path / "run", keep=1) as checkpoints:
        assert checkpoints.steps() == []


def test_what_a_killed_write_left_is_no_checkpoint(workdir):
    (workdir / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    with opened(workdir) as checkpoints:
        assert checkpoints.steps() == [1, 2]
    with opened(workdir, keep=2) as checkpoints:
        save(checkpoints, 3)
        assert checkpoints.steps() == [2, 3]
