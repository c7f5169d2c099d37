"""Back to the last checkpoint at a non-finite number: with other noise, and to the same end after a kill."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import records, state

from configs import toy2d
from introvae_jax.errors import UserError
from introvae_jax.experiment import Experiment
from introvae_jax.training import train_loop


def config(rollbacks, steps=30):
    config = toy2d.get_config("8gaussians,vae")  # its networks compile fast
    config.steps, config.batch_size, config.optim.schedule = steps, 8, "constant"
    config.model.width, config.model.depth = 8, 1
    config.log.every, config.log.pictures_every = 5, 1000
    config.checkpoint.every, config.checkpoint.rollbacks = 10, rollbacks
    return config


@pytest.fixture
def failing(monkeypatch):
    """A function that makes the losses infinite at a step, as long as the noise is that of the `times` first keys."""

    def make_failing(at, times):
        seen, make_step = [], Experiment.make_step

        def make(self, name, **changes):
            step = make_step(self, name, **changes)

            def poisoned(state, images):
                after, terms = step(state, images)
                keys = jnp.asarray([key for _, key in seen[:times]], jnp.uint32).reshape(-1, 2)
                ill = (state.step == at) & jnp.any(jnp.all(keys == state.key[None], axis=1))
                return after, {n: jnp.where(ill, jnp.inf, value) for n, value in terms.items()}

            return poisoned

        advance = train_loop.TrainLoop.run

        def note(self, state):
            seen.append((int(state.step), np.asarray(state.key).tolist()))
            return advance(self, state)

        monkeypatch.setattr(Experiment, "make_step", make)
        monkeypatch.setattr(train_loop.TrainLoop, "run", note)
        return seen

    return make_failing


def test_it_goes_back_with_another_key_and_on_to_the_end(failing, tmp_path, capfd):
    seen = failing(at=23, times=2)
    assert train_loop.train(config(rollbacks=3), tmp_path)
    assert [step for step, _ in seen] == [0, 20, 20]
    assert len({tuple(key) for _, key in seen}) == 3
    entries = [json.loads(line) for line in (tmp_path / "rollbacks.jsonl").read_text().splitlines()]
    assert [entry["to"] for entry in entries] == [20, 20]
    assert all("is inf at step 24" in entry["reason"] for entry in entries)
    said = capfd.readouterr().err
    assert "rollback 1 of 3, to step 20 with a new RNG key" in said
    assert "rollback 2 of 3, to step 20 with a new RNG key. It failed at the same step before" in said
    assert said.count("failed at the same step before") == 1
    assert [record["step"] for record in records(tmp_path)] == [5, 10, 15, 20, 25, 30]
    assert np.asarray(state(tmp_path, 30)["key"]).tolist() == seen[-1][1]


def test_after_so_many_times_it_stops(failing, tmp_path):
    failing(at=23, times=9)
    with pytest.raises(UserError, match=r"is inf at step 24: stopped after 2 rollbacks, .* checkpoint is step 20"):
        train_loop.train(config(rollbacks=2), tmp_path)
    with pytest.raises(
        UserError, match=r"stopped after 2 rollbacks.*failed at the same step before"
    ):  # the count outlives the process
        train_loop.train(config(rollbacks=2), tmp_path)


def test_without_leave_it_stops_at_once(failing, tmp_path):
    failing(at=23, times=1)
    with pytest.raises(UserError, match=r"is inf at step 24: stopped, the last good checkpoint is step 20"):
        train_loop.train(config(rollbacks=0), tmp_path)
    assert not (tmp_path / "rollbacks.jsonl").exists()


def test_before_the_first_checkpoint_it_starts_over(failing, tmp_path):
    seen = failing(at=3, times=1)
    assert train_loop.train(config(rollbacks=1, steps=10), tmp_path)
    assert [step for step, _ in seen] == [0, 0]


@pytest.fixture
def poisoned(monkeypatch):
    """A function that makes the parameters infinite at a step under the first key, with finite losses."""

    def make_poisoned(at):
        make_step = Experiment.make_step

        def make(self, name, **changes):
            step = make_step(self, name, **changes)
            first = self.init_state().key

            def poison(state, images):
                after, terms = step(state, images)
                ill = (state.step == at) & jnp.all(state.key == first)
                bad = jax.tree.map(lambda x: jnp.where(ill, jnp.inf, x), after.decoder.params)
                return after.replace(decoder=after.decoder.replace(params=bad)), terms

            return poison

        monkeypatch.setattr(Experiment, "make_step", make)

    return make_poisoned


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    run = config(rollbacks=0, steps=1)
    run.optim.learning_rate = 1e39  # beyond float32
    with pytest.raises(UserError, match=r"is not finite at step 1: stopped, no checkpoint had been written"):
        train_loop.train(run, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_it_goes_back_from_a_state_that_is_not_finite(poisoned, tmp_path):
    poisoned(at=19)  # the last step before the checkpoint of step 20
    assert train_loop.train(config(rollbacks=1), tmp_path)
    (entry,) = [json.loads(line) for line in (tmp_path / "rollbacks.jsonl").read_text().splitlines()]
    assert entry["to"] == 10
    assert "state/decoder/params" in entry["reason"]
    for step in (20, 30):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state(tmp_path, step)))


def test_a_start_passes_over_a_checkpoint_that_is_not_finite(poisoned, tmp_path, monkeypatch, capfd):
    poisoned(at=19)
    with monkeypatch.context() as patch:  # as older versions, which saved it
        patch.setattr("introvae_jax.checkpoints.digests.non_finite", lambda tree: None)
        assert train_loop.train(config(rollbacks=0, steps=20), tmp_path)
    monkeypatch.undo()
    assert train_loop.train(config(rollbacks=0), tmp_path)
    said = capfd.readouterr().err
    assert "of its state is not finite); there is another one of step 10; moved to" in said
    assert "from step 10 to 30" in said
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["20_0"]


@pytest.mark.parametrize("left", ["nothing", "damaged/", "a few records"])
def test_a_start_from_step_0_that_would_lose_progress_needs_a_flag(tmp_path, left):
    run = config(rollbacks=0, steps=40)
    assert train_loop.train(run, tmp_path)
    if left == "damaged/":
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "damaged").mkdir()
        (tmp_path / "checkpoints/40").rename(tmp_path / "damaged/40_0")
    if left == "a few records":  # as after a kill before the first checkpoint
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records(tmp_path)[:2]))
    shutil.rmtree(tmp_path / "checkpoints")
    if left != "a few records":
        with pytest.raises(UserError, match=r"ends at step 40|damaged holds the checkpoint of step 40") as caught:
            train_loop.train(run, tmp_path)
        assert caught.value.status == 1
        assert "--allow_restart" in str(caught.value)
    assert train_loop.train(run, tmp_path, allow_restart=left != "a few records")
    assert [record["step"] for record in records(tmp_path)] == list(range(5, 41, 5))


def test_a_run_that_is_killed_after_it_went_back_ends_the_same(failing, tmp_path, monkeypatch):
    failing(at=23, times=1)
    assert train_loop.train(config(rollbacks=1), tmp_path / "unbroken")
    monkeypatch.undo()
    seen = failing(at=23, times=1)
    kills = iter([False, True])
    advance = train_loop.TrainLoop.run

    def killed_the_second_time(self, state):
        if next(kills, False):
            raise KeyboardInterrupt
        return advance(self, state)

    monkeypatch.setattr(train_loop.TrainLoop, "run", killed_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        train_loop.train(config(rollbacks=1), tmp_path / "killed")
    assert train_loop.train(config(rollbacks=1), tmp_path / "killed")
    assert len(seen) == 2
    jax.tree.map(np.testing.assert_array_equal, state(tmp_path / "unbroken", 30), state(tmp_path / "killed", 30))


def test_damaged_lines_of_the_count_are_set_aside(failing, tmp_path, capfd):
    failing(at=23, times=9)
    path = tmp_path / "rollbacks.jsonl"
    path.write_bytes(b'\0\0\n{"to": 0, "reason": "kl_real is inf at step 3"}\n{"to": "x"}\n')
    with pytest.raises(UserError, match="stopped after 2 rollbacks"):  # the whole one counts
        train_loop.train(config(rollbacks=2), tmp_path)
    assert f"{path}: damaged lines 1, 3, moved to {path}.bad" in capfd.readouterr().err
    assert (tmp_path / "rollbacks.jsonl.bad").read_bytes() == b'\0\0\n{"to": "x"}\n'
