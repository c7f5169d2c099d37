"""The two ways by which images reach the step: the same images, in the same order, however many at once."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from runs import TIMES

from configs import digits
from introvae_jax import parallel
from introvae_jax.errors import UserError
from introvae_jax.training import feed, train_loop

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)


def config(cache):
    return ml_collections.ConfigDict({"data": {"cache": cache, "threads": 1}, "batch_size": 8, "seed": 3})


def make_feed(cache, devices, start=0):
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    made = feed.create(config(cache), IMAGES, replicas, start=start)

    def step(state, images):  # exact whatever the number of devices: whole numbers, summed by place in the batch
        sums = images.astype(jnp.int32).sum((1, 2, 3))
        state = (state * 31 + replicas.average(sums.sum().astype(jnp.float32)).astype(jnp.int32)) % 65_521
        return state, {"sums": sums.sum(), "state": state}

    made.use(step)
    return made, replicas.replicate(jnp.int32(1))


class Dying:
    """Images whose third batch cannot be had."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, rows):
        if 7 in rows:
            raise ValueError("checksum of record 7 differs\nand a second line")
        return IMAGES[rows]


def test_whatever_a_reading_thread_dies_of_is_one_error_of_the_disk():
    replicas = parallel.replicas(tuple(jax.devices()[:1]))
    with pytest.raises(OSError, match=r"could not be read \(checksum of record 7 differs and a second line\)"):
        made = feed.create(config("host"), Dying(), replicas)
        made.use(lambda state, images: (state, {"sum": images.astype(jnp.int32).sum()}))
        for _ in range(4):
            made.advance(jnp.int32(0), 1)


def states(cache, devices, counts, start=0):
    """The state after each step, taken in calls of `counts` steps."""
    made, state = make_feed(cache, devices, start)
    out = []
    for count in counts:
        state, terms = made.advance(state, count)
        out += np.ravel(terms["state"]).tolist()
    assert out[-1] == int(state)
    return out


@pytest.mark.parametrize("devices", [1, 4])
def test_streamed_and_resident_steps_see_the_same_images(devices):
    one_by_one = states("host", devices, [1] * 9)
    assert len(set(one_by_one)) == 9
    assert states("device", devices, [1] * 9) == one_by_one
    assert states("device", devices, [2, 5, 2]) == one_by_one
    assert states("device", devices, [4], start=5)[:1] != one_by_one[:1]


def test_started_later_both_go_on_with_the_same_batch():
    assert states("device", 1, [3], start=5) == states("host", 1, [1, 1, 1], start=5)


def test_images_that_do_not_fit_are_refused_before_they_are_sent():
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 2**30, "bytes_in_use": 2**29}

        def __str__(self):
            return "device 0"

    replicas = parallel.Replicas((Small(),), 1)
    replicas.require_memory(2**28, "images")
    with pytest.raises(UserError, match=r"60 images take 0.75 GiB, and device 0 has 0.50 GiB free; use .*cache=host"):
        replicas.require_memory(3 * 2**28, "60 images")


def test_a_run_on_resident_images_ends_where_a_streamed_one_ends(tmp_path, monkeypatch):
    """Warm-up, log, pictures and checkpoints at intervals that do not divide one another; scans of several steps."""
    monkeypatch.setattr(parallel.Replicas, "loops_are_fast", True)
    runs = {}
    for cache in ("host", "device"):
        config = digits.get_config()
        values = {"model.channels": (4, 4, 4), "model.z_dim": 4, "model.norm": "none", "batch_size": 8, "steps": 11,
                  "log.every": 2, "log.pictures_every": 5, "checkpoint.every": 7, "checkpoint.keep": 9,
                  "objective.warmup_steps": 3, "data.cache": cache, "optim.learning_rate": 1e-5}  # fmt: skip
        config.update_from_flattened_dict(values)
        train_loop.train(config, tmp_path / cache)
        records = (tmp_path / cache / "metrics.jsonl").read_text().splitlines()
        runs[cache] = [json.loads(line) for line in records]
        assert sorted(int(path.name) for path in (tmp_path / cache / "checkpoints").iterdir()) == [7, 11]
        assert len(list((tmp_path / cache / "pictures").iterdir())) == 6
    steps = [[record.pop("step") for record in records] for records in runs.values()]
    assert steps[0] == steps[1] == [2, 4, 5, 6, 7, 8, 10, 11]
    for streamed, resident in zip(runs["host"], runs["device"], strict=True):
        for record in (streamed, resident):
            for name in TIMES:
                record.pop(name, None)
        assert resident == pytest.approx(streamed, rel=1e-3, abs=1e-3)
